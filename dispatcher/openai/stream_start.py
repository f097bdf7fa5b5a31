"""How a stream of any route begins: with its first chunk, or with the answer that is sent instead."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import NO_BODY, Chunk, State, Submission
from bitladder.errors import IntakeClosingError
from bitladder.queue.waiting.outcomes import Heard
from bitladder.routing.accept import Accepted
from dispatcher.http.closing import moved
from dispatcher.http.problems import outcome_problem
from dispatcher.http.responses import EventStream, Response
from dispatcher.openai.awaiting import (
    abandoned,
    await_timeout_s,
    decision_headers,
    late_outcome,
    not_in_time,
    outcome_headers,
    record_served,
    unless_gone,
)
from dispatcher.state import IntakeState
from dispatcher.submission import submit


class Begun(NamedTuple):
    """A stream that begins, without its prompt: prompts are large, and a stream may be read for long."""

    job: Submission
    first: asyncio.Task[Heard]  # the first chunk, or the outcome; it may not be there yet
    items: AsyncIterator[Heard]  # what follows
    start: float  # when the request came, as time.perf_counter counts


class StreamEvents(Protocol):
    """The events of a stream, and what becomes of its job when it is closed."""

    def events(self) -> AsyncGenerator[bytes]:
        """Yield the events, the last one included that says why the stream ends."""
        ...

    def close(self) -> None:
        """End what nobody reads any more."""
        ...


class StreamForm(NamedTuple):
    """How a route streams."""

    events_of: Callable[[Begun], StreamEvents]
    repeated: Callable[[str], Awaitable[Response]]  # the answer to a repeat, by the id of its key's first job
    link: str  # where the stream is read on after this intake


async def begin_stream(request: HttpRequest, state: IntakeState, accepted: Accepted, form: StreamForm) -> Response:
    """Submit a job, and answer with its events as they arrive.

    The status is known once the first chunk or the outcome has arrived. If that takes longer than a heartbeat, the
    answer begins with 200, so that no proxy gives up, and an error becomes an event.
    """
    start, job = time.perf_counter(), accepted.submission
    with contextlib.ExitStack() as stack:
        inbox = stack.enter_context(state.inbox.opened(job.job_id, is_stream=True))
        job_id = await submit(state, accepted)
        if job_id != job.job_id:  # the idempotency key's first job
            return await form.repeated(job_id)
        items = state.closing.interruptible(state.inbox.items(job_id, inbox, await_timeout_s(state, job)), job_id)
        first = asyncio.create_task(_first(state, job_id, items))
        stack.callback(first.cancel)
        heartbeat_s = state.settings.intake.heartbeat_s
        if await unless_gone(request, asyncio.wait([first], timeout=heartbeat_s or None)) is None:
            return abandoned(state, job)
        if first.done() and (refusal := _refusal(state, job, first, start, form.link)):
            return refusal
        stream = form.events_of(Begun(_without_prompt(job), first, items, start))
        stack.callback(stream.close)
        headers = {"X-Job-Id": job_id, **decision_headers(job.request.decision)}
        return EventStream(stream.events(), headers, heartbeat_s=heartbeat_s, on_close=stack.pop_all().close)


def _without_prompt(job: Submission) -> Submission:
    return msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, body=NO_BODY))


async def _first(state: IntakeState, job_id: str, items: AsyncIterator[Heard]) -> Heard:
    """Return the first chunk, or the outcome.

    Raises:
        TimeoutError: neither came in time; or the job finished and its message was lost: the tokens are at its URL.

    """
    try:
        return await anext(items)
    except TimeoutError:
        late = await late_outcome(state, job_id)
        if late is None or late.state is State.FINISHED:
            raise
        return late


def _refusal(
    state: IntakeState, job: Submission, first: asyncio.Task[Heard], start: float, link: str
) -> Response | None:
    """Return the answer that is sent instead of a stream; None: the stream begins."""
    try:
        heard = first.result()
    except IntakeClosingError:
        return moved(job.job_id, link, is_repeatable=False)
    except TimeoutError:
        return not_in_time(state, job.job_id)
    if isinstance(heard, Chunk) or heard.state is State.FINISHED:
        return None
    record_served(state, job, heard, start)
    return outcome_problem(heard, outcome_headers(job.job_id, heard))
