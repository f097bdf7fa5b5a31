"""Where the commands that list ask: an intake, or Redis itself, with the same answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from bitladder.queue.job_queue import JobQueue

# An answer of the HTTP interface (docs/api/jobs-list.md).
Answer = dict[str, Any]


class ListingSide:
    """Lists jobs, workers and tenants."""

    def __init__(self, url: str | None, api_key: str | None, config: str | None) -> None:
        self._url, self._api_key, self._config = None if config else url, api_key, config

    def jobs(self, filters: Sequence[tuple[str, str]], after: str | None, limit: int) -> Answer:
        if self._url:
            position = [("after", after)] if after else []
            return self._call("/v1/jobs", params=[*filters, *position, ("limit", limit)])
        from bitladder.queue.json_views.finding.job_filter import read_filter
        from bitladder.queue.json_views.job_list import list_jobs

        return self._ask(lambda queue: list_jobs(queue, read_filter(filters).checked(queue.settings), after, limit))

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

        return self._ask(look)

    def workers(self) -> Answer:
        if self._url:
            return self._call("/v1/workers")
        from bitladder.overview.worker_list import list_workers

        return self._ask(list_workers)

    def tenants(self) -> Answer:
        if self._url:
            return self._call("/v1/tenants")
        from bitladder.overview.tenant_list import list_tenants

        return self._ask(list_tenants)

    def _call(self, path: str, **arguments: Any) -> Answer:  # noqa: ANN401  (of the client's call)
        from bitladder.cli.job_commands import intake_client

        assert self._url  # noqa: S101  (who calls has asked)
        with intake_client(self._url, self._api_key) as client:
            return client.call("GET", path, **arguments)

    def _ask(self, work: Callable[[JobQueue], Awaitable[object]]) -> Answer:
        from bitladder.queue.job_queue import JobQueue
        from bitladder.queue.server.connection import connect
        from bitladder.settings.load import load_settings

        settings = load_settings(self._config, with_keys=True).settings

        async def ask() -> object:
            client = connect(settings.redis)
            try:
                return await work(JobQueue(client, settings))
            finally:
                await client.aclose()

        answer: Answer = json.loads(msgspec.json.encode(asyncio.run(ask())))
        return answer
