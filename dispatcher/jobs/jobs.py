"""POST, GET and DELETE /v1/jobs: submit now, read the outcome later."""

from __future__ import annotations

import contextlib
import time
import uuid

from starlette.requests import Request as HttpRequest

from bitladder.contract import Endpoint, JobView, Lane
from bitladder.decision import describe_decision
from bitladder.errors import GoneError, IntakeClosingError, NotFoundError, RequestError
from bitladder.ids import readable
from bitladder.queue.json_views.job import describe_cancelled, describe_job
from bitladder.routing.body import has_messages
from dispatcher.jobs.job_ids import read_job_id
from dispatcher.openai.completions import outcome_headers, unless_gone
from dispatcher.query import query_number
from dispatcher.responses import Response, json_response
from dispatcher.state import Gateway

# What a client that polls should leave between two looks.
POLL_AFTER_S = 1


async def post_job(request: HttpRequest) -> Response:
    """Accept a completion or chat body, told apart by its fields; `endpoint` and `lane` may be query parameters."""
    gateway: Gateway = request.app.state.gateway
    body = await gateway.body(request)
    endpoint = _endpoint(request.query_params.get("endpoint"), body)
    accepted = gateway.route(request, endpoint, body, lane=_lane(request.query_params.get("lane")))
    job = accepted.submission
    job_id = await gateway.submit(accepted)
    link = gateway.link(job_id)
    answer = {
        "id": job_id,
        "object": "job",
        "status": "queued",
        "model": job.model,
        "ceiling": job.request.ceiling,
        "queue": job.queue,
        **describe_decision(job.request.decision),
        "urls": {"self": link, "wait": f"{link}?wait=30", "cancel": link},
    }
    return json_response(answer, 202, {"Location": link, "Retry-After": str(POLL_AFTER_S), "X-Job-Id": job_id})


async def get_job(request: HttpRequest) -> Response:
    """Show a job; with ?wait=seconds, answer when it is over or the time is."""
    gateway: Gateway = request.app.state.gateway
    job_id = read_job_id(request)
    wait_s = query_number(request, "wait", maximum=gateway.settings.intake.max_wait_s)
    view = await own_job(request, gateway, job_id)
    if not view.state.is_terminal and wait_s:
        with contextlib.suppress(IntakeClosingError), gateway.closing.interrupts():
            await unless_gone(request, gateway.inbox.wait(job_id, wait_s))
        view = await own_job(request, gateway, job_id)
    headers = outcome_headers(job_id, view.outcome) if view.outcome else {"Retry-After": str(POLL_AFTER_S)}
    return json_response(describe_job(view), 200, headers)


async def delete_job(request: HttpRequest) -> Response:
    """Cancel a job: a waiting one is over at once, a running one is aborted by its worker."""
    gateway: Gateway = request.app.state.gateway
    job_id = read_job_id(request)
    await own_job(request, gateway, job_id)
    word = await gateway.queue.cancel(job_id)
    view = await own_job(request, gateway, job_id)
    return json_response(describe_cancelled(view, word), 202 if word == "requested" else 200)


def missing(job_id: str, ttl_s: int) -> NotFoundError | GoneError:
    """Tell an id that never was from one whose outcome expired: our ids carry the time they were made."""
    try:
        parsed = uuid.UUID(job_id)
    except ValueError:
        return NotFoundError(f"there is no job {readable(job_id)!r}", param="id")
    made_s = (parsed.int >> 80) / 1000
    if parsed.version == 7 and made_s < time.time() - ttl_s:
        return GoneError(f"job {job_id} is no longer stored: outcomes are kept for {ttl_s} s", param="id")
    return NotFoundError(f"there is no job {readable(job_id)!r}", param="id")


async def own_job(request: HttpRequest, gateway: Gateway, job_id: str) -> JobView:
    """Return a job that the caller may see; a job of another tenant is as unknown as one that never was."""
    view, caller = await gateway.view(job_id), request.state.caller
    if view is None or not caller.sees(view.tenant):
        raise missing(job_id, gateway.settings.queue.result_ttl_s)
    return view


def _endpoint(raw: str | None, body: bytes) -> Endpoint:
    if raw is None:
        return Endpoint.CHAT if has_messages(body) else Endpoint.COMPLETIONS
    try:
        return Endpoint(raw)
    except ValueError:
        raise RequestError(
            f"endpoint must be one of {', '.join(Endpoint)}, got {raw[:80]!r}", param="endpoint"
        ) from None


def _lane(raw: str | None) -> Lane | None:
    try:
        return Lane(raw) if raw is not None else None
    except ValueError:
        raise RequestError(f"lane must be one of {', '.join(Lane)}, got {raw!r:.80}", param="lane") from None
