"""The way of a request to a queued job: route it, admit it, submit it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import Submission
from bitladder.endpoints import Endpoint
from bitladder.errors import AcceptanceUnknownError, BitladderError, QueueFullError
from bitladder.queue_name import Lane, QueueName
from bitladder.routing.accept import Accepted, Incoming, accept
from bitladder.routing.envelope import LatencyBudget
from bitladder.settings.access import Caller
from dispatcher.admission.second_look import is_repeat
from dispatcher.state import IntakeState


def route(
    state: IntakeState,
    request: HttpRequest,
    endpoint: Endpoint,
    body: bytes,
    *,
    lane: Lane | None = None,
    reply: bool = False,
) -> Accepted:
    """Score and route one body; `reply`: the request waits for the outcome."""
    return route_request(state, request, incoming_of(state, request, endpoint, body, lane), reply=reply)


def route_request(state: IntakeState, request: HttpRequest, incoming: Incoming, *, reply: bool) -> Accepted:
    """Score and route one request of HTTP, which may name who is told of its end."""
    accepted = route_incoming(state, incoming, reply=reply)
    if hook := state.webhooks.hook(incoming.headers, request.state.caller, is_awaited=reply):
        job = msgspec.structs.replace(accepted.submission, hook=hook)
        accepted = msgspec.structs.replace(accepted, submission=job)
    return accepted


def route_incoming(state: IntakeState, incoming: Incoming, *, reply: bool) -> Accepted:
    """Score and route one request, whether it came over HTTP or in a file."""
    start = time.perf_counter()
    accepted = accept(incoming, state.settings, reply_to=state.inbox.channel if reply else "")
    state.metrics.routing.observe(time.perf_counter() - start)
    job = accepted.submission
    state.capture.offer(accepted)
    state.metrics.count_decision(job.model, QueueName.parse(job.queue).lane, job.request.decision)
    if accepted.drawn:
        state.metrics.canary(accepted.drawn.model, accepted.drawn.end).inc()
    return accepted


def incoming_of(
    state: IntakeState, request: HttpRequest, endpoint: Endpoint, body: bytes, lane: Lane | None
) -> Incoming:
    """Return one request as routing reads it."""
    caller: Caller = request.state.caller
    return Incoming(
        endpoint=endpoint,
        body=body,
        headers=_read(request.scope["headers"]),
        request_id=request.state.request_id,
        lane=lane,
        tenant=caller.tenant,
        max_of_tenant=caller.max_queued or 0,
        payer=caller.key if caller.has_budget else "",
        curves=state.budgets.curves,
        key_name=caller.key,
        weight=caller.weight,
        rules=caller.rules,
        has_worker=state.has_worker,
    )


def _read(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name, of several the first: Starlette's own search all of them for each one that is read."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}


async def submit(state: IntakeState, accepted: Accepted) -> str:
    """Queue one job; return the id it is stored under.

    Raises:
        RefusedError: there is more work than can be done within the client's latency budget, or than may wait.
        QueueUnreachableError: Redis is unreachable: nothing was accepted.
        AcceptanceUnknownError: it may have been. Sending the request again is safe: with a key it is stored once,
            without one it is withdrawn.

    """
    job = accepted.submission
    try:
        job_id = await submit_admitted(state, job, accepted.envelope.latency_budget)
    except AcceptanceUnknownError as error:
        raise _in_doubt(state, job, error) from None
    state.waits.accepted(job)
    return job_id


async def submit_admitted(state: IntakeState, job: Submission, latency_budget: LatencyBudget) -> str:
    """Queue one job; return the id it is stored under, and raise what `submit` does: nothing is withdrawn."""
    if state.traces is None:
        return await _submit_admitted(state, job, latency_budget)
    with state.traces.submitting(job) as traced:
        return await _submit_admitted(state, traced, latency_budget)


async def _submit_admitted(state: IntakeState, job: Submission, latency_budget: LatencyBudget) -> str:
    entry = await state.admission.enter(job, latency_budget)
    try:
        answer = await _submit_paid(state, job) if job.request.payer else await state.bundles.submit(job)
    finally:
        state.admission.arrived(entry)
    if isinstance(answer, QueueFullError):
        answer.retry_after_s = state.admission.room_after_s(job.queue, state.settings.queue.max_depth)
    if isinstance(answer, BitladderError):
        raise answer
    return answer


async def _submit_paid(state: IntakeState, job: Submission) -> str | BitladderError:
    """Queue one job that a budget pays for; what is not queued, or was before, is not charged."""
    refusal = await state.budgets.charge(job.request)
    if refusal and not await is_repeat(state.queue.client, job):
        raise refusal
    answer = await state.bundles.submit(job)
    is_queued = answer == job.job_id or isinstance(answer, AcceptanceUnknownError)
    if not refusal and not is_queued:
        await state.budgets.give_up(job.request)
    return answer


def _in_doubt(state: IntakeState, job: Submission, error: AcceptanceUnknownError) -> AcceptanceUnknownError:
    where = f"GET {state.job_url(job.job_id)} says whether it was"
    if job.idempotency_key:
        advice = f"{where}, and repeating the request with the same Idempotency-Key is safe"
    else:
        state.withdrawals.add(job)
        advice = f"without an Idempotency-Key it is withdrawn, so that repeating the request is safe; {where}"
    public = f"it is not known whether the job {job.job_id} was accepted: the queue did not answer in time; {advice}"
    return AcceptanceUnknownError(f"{error}; {advice}", job_id=job.job_id, public=public)


def abandon(state: IntakeState, job: Submission) -> None:
    """Cancel a job whose client has disconnected, in the background: the request's own task may be ending.

    A job with an idempotency key is kept: its client may come back for it. So are the jobs that are awaited when the
    intake closes: it is not the clients that leave.
    """
    if not job.idempotency_key and not state.closing.has_ended_waits:
        state.withdrawals.add_left(job)
