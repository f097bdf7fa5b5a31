"""GET /v1/jobs, /v1/workers and /v1/tenants: what there is, and where."""

from __future__ import annotations

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import ForbiddenError
from bitladder.overview.tenant_list import list_tenants
from bitladder.overview.worker_list import list_workers
from bitladder.queue.json_views.finding.job_filter import JobFilter, read_filter
from bitladder.queue.json_views.job_list import DEFAULT_JOBS, MAX_JOBS, list_jobs, list_jobs_at_each
from bitladder.settings.access import Caller
from dispatcher.http.request_parts import query_count
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state


async def get_jobs(request: HttpRequest) -> Response:
    """List jobs, the latest first: of every tenant to operators, to others their own; ?limit= to 500, ?after=."""
    state, caller = intake_state(request), request.state.caller
    limit = query_count(request, "limit", minimum=1, maximum=MAX_JOBS) or DEFAULT_JOBS
    filters = [(name, value) for name, value in request.query_params.multi_items() if name not in ("limit", "after")]
    selection, after = read_filter(filters), request.query_params.get("after")
    queues = {} if selection.model in state.settings.models else state.queues  # a model's jobs are at one Redis
    parts = [queue.settings for queue in queues.values()] or [state.settings]
    selection = _own(selection.checked(*parts), caller)
    if queues:
        listed = await list_jobs_at_each(queues, selection, after, limit, of_all_tenants=caller.sees_all)
    else:
        listed = await list_jobs(state.queue, selection, after, limit, of_all_tenants=caller.sees_all)
    return json_response(listed)


async def get_workers(request: HttpRequest) -> Response:
    """List the workers, and what each of them does."""
    return json_response(await list_workers(intake_state(request).queue))


async def get_tenants(request: HttpRequest) -> Response:
    """List the tenants, those with the most jobs first."""
    return json_response(await list_tenants(intake_state(request).queue))


def _own(selection: JobFilter, caller: Caller) -> JobFilter:
    """Return what the caller may see of a selection.

    Raises:
        ForbiddenError: it names another tenant.

    """
    if caller.sees_all:
        return selection
    if selection.tenant not in (None, caller.tenant):
        raise ForbiddenError(
            "tenant must be the key's own: only a key with the scope 'ops:read' lists other tenants' jobs"
        )
    return msgspec.structs.replace(selection, tenant=caller.tenant)
