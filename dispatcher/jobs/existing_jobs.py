"""GET and DELETE /v1/jobs/{job_id}: read a job, wait for its outcome, cancel it."""

from __future__ import annotations

import contextlib

from starlette.requests import Request as HttpRequest

from bitladder.contract import JobView
from bitladder.errors import IntakeClosingError
from bitladder.queue.job_record import missing
from bitladder.queue.json_views.job import describe_cancelled, describe_job
from dispatcher.auth import check_may_change
from dispatcher.http.preferences import NO_PREFERENCES, preferences_of
from dispatcher.http.request_parts import path_job_id, query_number
from dispatcher.http.responses import Response, json_response
from dispatcher.openai.accepted import POLL_AFTER_S
from dispatcher.openai.awaiting import outcome_headers, unless_gone
from dispatcher.state import IntakeState, intake_state


async def get_job(request: HttpRequest) -> Response:
    """Show a job; with ?wait=seconds, answer once it is terminal or the time is over."""
    state = intake_state(request)
    job_id = path_job_id(request)
    max_s = state.settings.intake.max_wait_s
    wait_s = query_number(request, "wait", maximum=max_s)
    preferences = preferences_of(request, max_s) if wait_s is None else NO_PREFERENCES
    wait_s = preferences.wait_s if wait_s is None else wait_s
    view = await own_job(request, state, job_id)
    if not view.state.is_terminal and wait_s:
        with contextlib.suppress(IntakeClosingError), state.closing.interrupts():
            await unless_gone(request, state.inbox.wait(job_id, wait_s))
        view = await own_job(request, state, job_id)
    headers = outcome_headers(job_id, view.outcome) if view.outcome else {"Retry-After": str(POLL_AFTER_S)}
    if view.outcome:
        state.waits.ended(job_id, view.outcome)
    headers |= preferences.applied(is_async=False)
    return json_response(describe_job(view, state.waits.of_waiting(view)), 200, headers)


async def cancel_job(request: HttpRequest) -> Response:
    """Cancel a job: a waiting one ends at once, a running one is aborted by its worker."""
    state = intake_state(request)
    job_id = path_job_id(request)
    check_may_change(request, (await own_job(request, state, job_id)).tenant)
    cancellation = await state.queue.cancel(job_id)
    view = await own_job(request, state, job_id)
    return json_response(describe_cancelled(view, cancellation), 202 if cancellation == "requested" else 200)


async def own_job(request: HttpRequest, state: IntakeState, job_id: str) -> JobView:
    """Return a job that the caller may see; a job of another tenant is answered like an unknown id."""
    view, caller = await state.view(job_id), request.state.caller
    if view is None or not caller.sees(view.tenant):
        raise missing(job_id, state.settings.queue.result_ttl_s)
    return view
