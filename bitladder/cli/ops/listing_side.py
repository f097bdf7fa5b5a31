"""Where the commands that list ask: an intake, or Redis itself, with the same answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bitladder.cli.ops.asking import Answer, Merge, ask_each, ask_intake, ask_queues, in_force

if TYPE_CHECKING:
    from bitladder.queue.job_queue import JobQueue
    from bitladder.settings.sections import Settings


class ListingSide:
    """Lists jobs, workers and tenants."""

    def __init__(self, url: str | None, api_key: str | None, config: str | None) -> None:
        self._url, self._api_key, self._config = None if config else url, api_key, config

    def jobs(self, filters: Sequence[tuple[str, str]], after: str | None, limit: int) -> Answer:
        if self._url:
            position = [("after", after)] if after else []
            return self._call("/v1/jobs", params=[*filters, *position, ("limit", limit)])
        from bitladder.queue.json_views.finding.job_filter import read_filter
        from bitladder.queue.json_views.job_list import list_jobs, list_jobs_at_each

        selection = read_filter(filters)

        async def look(queues: Mapping[str, JobQueue]) -> object:
            chosen = selection.checked(*(queue.settings for queue in queues.values()))
            named = [queue for queue in queues.values() if chosen.model in (None, *queue.settings.models)]
            if len(named) == 1:
                return await list_jobs(named[0], chosen, after, limit)
            return await list_jobs_at_each(queues, chosen, after, limit)

        return ask_queues(self._parts(), look)

    def job(self, job_id: str) -> Answer:
        if self._url:
            from bitladder.client.answers import job_path

            return self._call(job_path(job_id))
        from bitladder.queue.job_record import missing
        from bitladder.queue.json_views.job import describe_job

        async def look(queue: JobQueue) -> object:
            view = await queue.view(job_id)
            if view is None:
                raise missing(job_id, queue.settings.queue.result_ttl_s)
            return describe_job(view)

        return self._ask_each(look)

    def workers(self) -> Answer:
        if self._url:
            return self._call("/v1/workers")
        from bitladder.overview.worker_list import list_workers
        from bitladder.queue.json_views.merging import merged_workers

        return self._ask_each(list_workers, merged_workers)

    def tenants(self) -> Answer:
        if self._url:
            return self._call("/v1/tenants")
        from bitladder.overview.tenant_list import list_tenants
        from bitladder.queue.json_views.merging import merged_tenants

        return self._ask_each(list_tenants, merged_tenants)

    def _call(self, path: str, **arguments: Any) -> Answer:  # noqa: ANN401  (of the client's call)
        assert self._url  # noqa: S101  (who calls has asked)
        return ask_intake(self._url, self._api_key, "GET", path, **arguments)

    def _parts(self) -> list[Settings]:
        from bitladder.settings.load import load_settings

        return in_force(load_settings(self._config, with_keys=True)).settings.at_each_redis

    def _ask_each(self, work: Callable[[JobQueue], Awaitable[object]], merge: Merge | None = None) -> Answer:
        return ask_each(self._parts(), work, merge)
