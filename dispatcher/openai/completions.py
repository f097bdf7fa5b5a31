"""POST /v1/completions and /v1/chat/completions: await or stream the answer. OpenAI's clients use this endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import NO_BODY, Chunk, Endpoint, Outcome, State, Submission
from bitladder.decision import Decision
from bitladder.errors import BitladderError, IntakeClosingError
from bitladder.ids import in_url
from bitladder.queue.waiting.outcomes import Heard
from bitladder.routing.accept import Accepted
from dispatcher.closing import last_event_id, moved, restart_event
from dispatcher.problems import FINAL, outcome_problem, problem, problem_body
from dispatcher.responses import HEARTBEAT, EventStream, Handler, Response
from dispatcher.state import Gateway

# A worker aborts at the deadline; its word of that takes a moment.
DEADLINE_GRACE_S = 1.0

T = TypeVar("T")


def completion_handler(endpoint: Endpoint) -> Handler:
    """Return the handler of one OpenAI route."""

    async def handle(request: HttpRequest) -> Response:
        gateway: Gateway = request.app.state.gateway
        accepted = gateway.route(request, endpoint, await gateway.body(request), reply=True)
        if accepted.stream:
            return await _stream(request, gateway, accepted)
        return await _await(request, gateway, accepted)

    return handle


def outcome_headers(job_id: str, outcome: Outcome) -> dict[str, str]:
    """Return how the answer came about, for the response headers."""
    headers = {
        "X-Job-Id": in_url(job_id),
        "X-Tier": outcome.tier,
        **(decision_headers(outcome.decision) if outcome.decision else {}),
        "X-Overflowed-From": outcome.overflowed_from,
        "X-Queue-Ms": f"{outcome.queue_ms:.1f}",
    }
    return {name: value for name, value in headers.items() if value is not None}


def decision_headers(decision: Decision) -> dict[str, str]:
    """Return how the floor was chosen, for the response headers."""
    entropy = decision.score.entropy
    headers = {
        "X-Floor": decision.floor or None,
        "X-Entropy": None if entropy is None else f"{entropy:.4f}",
        "X-Policy": decision.label,
        "X-Route-Reason": decision.reason,
    }
    return {name: value for name, value in headers.items() if value is not None}


async def _await(request: HttpRequest, gateway: Gateway, accepted: Accepted) -> Response:
    start, job = time.perf_counter(), accepted.submission
    try:
        found = await unless_gone(request, _outcome(gateway, accepted))
    except IntakeClosingError as error:
        return moved(error.job_id, gateway.link(error.job_id), is_repeatable=bool(job.idempotency_key))
    if found is None:
        return _abandoned(gateway, job)
    job_id, outcome = found
    outcome = outcome or await _late_outcome(gateway, job_id)
    if outcome is None:
        return _not_in_time(gateway, job_id)
    _served(gateway, job, outcome, start)
    headers = outcome_headers(job_id, outcome)
    if outcome.state is not State.FINISHED or outcome.answer is None:
        return outcome_problem(outcome, headers)
    return Response(outcome.answer, outcome.status, headers, media_type="application/json")


async def unless_gone(request: HttpRequest, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`, or None when the client closes the connection first."""
    mine = asyncio.current_task()
    assert mine  # noqa: S101  (a endpoint runs in a task)
    is_over = False  # a callback that is due already cannot be removed any more

    def interrupt(gone: asyncio.Task[None]) -> None:
        if not (is_over or gone.cancelled()):
            mine.cancel()

    gone = asyncio.create_task(_disconnected(request))
    gone.add_done_callback(interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone.done() or mine.uncancel():  # somebody else wants this task to end
            raise
        return None
    finally:
        is_over = True
        gone.cancel()


def _served(gateway: Gateway, job: Submission, outcome: Outcome, start: float) -> None:
    """Count a request whose client was told how its job ended."""
    tier = gateway.tier_of(job, outcome)
    gateway.capture.served(job.job_id, tier)
    gateway.metrics.served(job.model, tier, outcome.state).inc()
    gateway.metrics.awaited(job.model, tier).observe(time.perf_counter() - start)


def _abandoned(gateway: Gateway, job: Submission) -> Response:
    gateway.abandon(job)
    return problem(499, "the client closed the connection", "client_closed_request")


def _timeout_s(gateway: Gateway, job: Submission) -> float:
    """Return how long to wait: not for a job whose deadline has passed, though no worker may have looked at it."""
    max_s = gateway.settings.intake.await_timeout_s
    return max_s if job.deadline_ms is None else min(max_s, job.deadline_ms / 1000 + DEADLINE_GRACE_S)


async def _late_outcome(gateway: Gateway, job_id: str) -> Outcome | None:
    """Return what became of a job that was awaited long enough: one that nobody looked at ends with its deadline."""
    with contextlib.suppress(BitladderError):
        await gateway.queue.expire(job_id)
        (found,) = await gateway.queue.look([job_id])
        return found if isinstance(found, Outcome) else None
    return None


def _not_in_time(gateway: Gateway, job_id: str) -> Response:
    headers = {"X-Job-Id": in_url(job_id), "Location": gateway.link(job_id)} | FINAL
    return problem(504, _late_message(gateway, job_id), "await_timeout", headers=headers)


def _late_message(gateway: Gateway, job_id: str) -> str:
    return f"no outcome in time: GET {gateway.link(job_id)} says what becomes of the job"


async def _outcome(gateway: Gateway, accepted: Accepted) -> tuple[str, Outcome | None]:
    job = accepted.submission
    timeout_s = _timeout_s(gateway, job)
    with gateway.inbox.opened(job.job_id, is_stream=False) as inbox:
        job_id = await gateway.submit(accepted)
        with gateway.closing.interrupts(job_id):
            if job_id != job.job_id:  # the idempotency key's first job
                return job_id, await gateway.inbox.wait(job_id, timeout_s)
            return job_id, await gateway.inbox.outcome(job_id, inbox, timeout_s)


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(request: HttpRequest, gateway: Gateway, accepted: Accepted) -> Response:
    """Answer with the tokens as they come.

    The status is known once the first chunk or the outcome is there. It is not waited for longer than a heartbeat: then
    the answer begins without, so that nobody on its way gives up, and what goes wrong is an event.
    """
    start, job = time.perf_counter(), accepted.submission
    with contextlib.ExitStack() as stack:
        inbox = stack.enter_context(gateway.inbox.opened(job.job_id, is_stream=True))
        job_id = await gateway.submit(accepted)
        if job_id != job.job_id:
            return _repeated_stream(gateway, job_id)
        items = gateway.closing.passed(gateway.inbox.items(job_id, inbox, _timeout_s(gateway, job)), job_id)
        first = asyncio.create_task(_first(gateway, job_id, items))
        stack.callback(first.cancel)
        heartbeat_s = gateway.settings.intake.heartbeat_s
        if await unless_gone(request, asyncio.wait([first], timeout=heartbeat_s or None)) is None:
            return _abandoned(gateway, job)
        if first.done() and (refusal := _refusal(gateway, job, first, start)):
            return refusal
        headers = {"X-Job-Id": job_id, **decision_headers(job.request.decision)}
        chunks = _chunks(gateway, _without_prompt(job), first, items, start, stack.pop_all())
        return EventStream(chunks, headers, heartbeat_s=heartbeat_s)


def _without_prompt(job: Submission) -> Submission:
    """Return what a stream must know of its job, for as long as somebody reads it: prompts are large."""
    return msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, body=NO_BODY))


async def _first(gateway: Gateway, job_id: str, items: AsyncIterator[Heard]) -> Heard:
    """Return what is heard first.

    Raises:
        TimeoutError: nothing is in time; or the job ended unheard, and its tokens are read at its own address.

    """
    try:
        return await anext(items)
    except TimeoutError:
        late = await _late_outcome(gateway, job_id)
        if late is None or late.state is State.FINISHED:
            raise
        return late


def _refusal(gateway: Gateway, job: Submission, first: asyncio.Task[Heard], start: float) -> Response | None:
    """Return what there is to say instead of a stream."""
    try:
        heard = first.result()
    except IntakeClosingError:
        return moved(job.job_id, f"{gateway.link(job.job_id)}/events", is_repeatable=False)
    except TimeoutError:
        return _not_in_time(gateway, job.job_id)
    if isinstance(heard, Chunk) or heard.state is State.FINISHED:
        return None
    _served(gateway, job, heard, start)
    return outcome_problem(heard, outcome_headers(job.job_id, heard))


def _repeated_stream(gateway: Gateway, job_id: str) -> Response:
    link = gateway.link(job_id)
    message = f"a streamed request is not streamed twice; its outcome is at GET {link}"
    headers = {"X-Job-Id": in_url(job_id), "Location": link} | FINAL
    return problem(409, message, "stream_already_requested", param="Idempotency-Key", headers=headers)


async def _chunks(
    gateway: Gateway,
    job: Submission,
    first: asyncio.Task[Heard],
    items: AsyncIterator[Heard],
    start: float,
    stack: contextlib.ExitStack,
) -> AsyncIterator[bytes]:
    read, is_over = None, False
    try:
        if not first.done():
            yield HEARTBEAT
        item = await first
        while isinstance(item, Chunk):
            yield item.data
            read = item
            item = await anext(items)
        is_over = True
        _served(gateway, job, item, start)
        yield closing_event(item)
    except IntakeClosingError:
        is_over = True  # for this intake; the job goes on
        yield restart_event(job.job_id, f"{gateway.link(job.job_id)}/events", last_event_id(read))
    except (TimeoutError, BitladderError) as error:
        is_over = read is None and isinstance(error, TimeoutError)  # all of it can be read later
        yield broken_event(gateway, error, job.job_id)
    finally:
        stack.close()
        if not is_over:  # the client went away, or the answer is worth nothing any more
            gateway.abandon(job)


def closing_event(outcome: Outcome) -> bytes:
    """Return the last event of a stream: [DONE], or why the job did not finish."""
    if outcome.state is State.FINISHED:
        return b"data: [DONE]\n\n"
    return error_event(outcome.answer or problem_body(outcome.status, outcome.error or "", outcome.code or ""))


def broken_event(gateway: Gateway, error: TimeoutError | BitladderError, job_id: str) -> bytes:
    """Return the last event of a stream whose outcome could not be waited for, or whose chunks are not all there."""
    code = error.code if isinstance(error, BitladderError) else "await_timeout"
    gateway.metrics.broken_streams(code).inc()
    if isinstance(error, BitladderError):
        return error_event(problem_body(error.status, error.public or str(error), code))
    return error_event(problem_body(504, _late_message(gateway, job_id), code))


def error_event(body: bytes) -> bytes:
    """Return an error as an event."""
    return b"data: " + body + b"\n\n"
