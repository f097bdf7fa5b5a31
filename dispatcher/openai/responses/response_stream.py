"""A response's events as they come: of a request that awaits them, or read again from any number on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

import structlog
from starlette.requests import Request as HttpRequest

from bitladder.contract import Chunk, Outcome, State, Submission
from bitladder.errors import BitladderError, IntakeClosingError
from bitladder.queue.waiting.outcomes import Heard
from bitladder.queue.waiting.reading import StreamRestartedError
from bitladder.routing.accept import Accepted
from dispatcher.http.closing import moved
from dispatcher.http.preferences import NO_PREFERENCES
from dispatcher.http.problems import outcome_problem
from dispatcher.http.responses import HEARTBEAT, EventStream, Response
from dispatcher.idempotency import KeyInUseError, attaches, ended, in_use
from dispatcher.openai.awaiting import (
    abandoned,
    await_timeout_s,
    decision_headers,
    late_message,
    late_outcome,
    not_in_time,
    outcome_headers,
    record_served,
    unless_gone,
)
from dispatcher.openai.responses.event_numbers import EventNumbers
from dispatcher.openai.responses.record import StoredResponse
from dispatcher.state import IntakeState
from dispatcher.submission import abandon, submit

log = structlog.get_logger()


def response_url(state: IntakeState, response_id: str) -> str:
    """Return where clients find a stored response."""
    return f"{state.settings.intake.root_path}/v1/responses/{response_id}"


def follow_events(state: IntakeState, response: StoredResponse, after: int = -1) -> EventStream:
    """Answer with the events of a stored response behind that number. Who leaves does not end it."""

    async def events() -> AsyncGenerator[bytes]:
        shown = _Events(state, response, EventNumbers(response, after))
        # A response in the background may wait for hours: whoever follows it sees heartbeats meanwhile.
        async with contextlib.aclosing(state.inbox.follow(response.job_id, state.settings.queue.max_wait_s)) as items:
            async for part in shown.all(state.closing.interruptible(items, response.job_id)):
                yield part

    return EventStream(events(), {"X-Job-Id": response.job_id}, heartbeat_s=state.settings.intake.heartbeat_s)


async def stream_response(request: HttpRequest, state: IntakeState, accepted: Accepted) -> Response:
    """Answer with the events as they arrive: at the first one, or after a heartbeat's time.

    An error before that has its own status, and a client that leaves ends the job, as with a stream of a chat.
    """
    start, job = time.perf_counter(), accepted.submission
    response = StoredResponse(job.job_id, job.request, job.queue)
    with contextlib.ExitStack() as stack:
        inbox = stack.enter_context(state.inbox.opened(job.job_id, is_stream=True))
        job_id = await submit(state, accepted)
        if job_id != job.job_id:  # the idempotency key's first job
            return await _repeated(request, state, StoredResponse(job_id, job.request, job.queue))
        items = state.closing.interruptible(state.inbox.items(job_id, inbox, await_timeout_s(state, job)), job_id)
        first = asyncio.create_task(_first(state, job_id, items))
        stack.callback(first.cancel)
        heartbeat_s = state.settings.intake.heartbeat_s
        if await unless_gone(request, asyncio.wait([first], timeout=heartbeat_s or None)) is None:
            return abandoned(state, job)
        if first.done() and (refusal := _refusal(state, response, job, first, start)):
            return refusal
        events = _Events(state, response, EventNumbers(response), job, start)
        stack.callback(events.close)
        headers = {"X-Job-Id": job_id, **decision_headers(job.request.decision)}
        return EventStream(events.all(items, first), headers, heartbeat_s=heartbeat_s, on_close=stack.pop_all().close)


async def _repeated(request: HttpRequest, state: IntakeState, response: StoredResponse) -> Response:
    """Return the events of the first request with an idempotency key, once they are all there: the same answer."""
    if not attaches(request, NO_PREFERENCES):
        try:
            await ended(state, response.job_id)
        except KeyInUseError as error:
            return in_use(state, error)
    return follow_events(state, response)


async def _first(state: IntakeState, job_id: str, items: AsyncIterator[Heard]) -> Heard:
    """Return the first chunk, or the outcome.

    Raises:
        TimeoutError: neither came in time.

    """
    try:
        return await anext(items)
    except TimeoutError:
        late = await late_outcome(state, job_id)
        if late is None or late.state is State.FINISHED:
            raise
        return late


def _refusal(
    state: IntakeState, response: StoredResponse, job: Submission, first: asyncio.Task[Heard], start: float
) -> Response | None:
    """Return the answer that is sent instead of a stream; None: the stream begins."""
    try:
        heard = first.result()
    except IntakeClosingError:
        return moved(job.job_id, response_url(state, response.id), is_repeatable=False)
    except TimeoutError:
        return not_in_time(state, job.job_id)
    if isinstance(heard, Chunk) or heard.state is State.FINISHED:
        return None
    record_served(state, job, heard, start)
    return outcome_problem(heard, outcome_headers(job.job_id, heard))


class _Events:
    """The events of one answer, and what becomes of its job when the client leaves."""

    def __init__(
        self,
        state: IntakeState,
        response: StoredResponse,
        numbers: EventNumbers,
        job: Submission | None = None,
        start: float = 0.0,
    ) -> None:
        self._state, self._response, self._numbers = state, response, numbers
        self._job, self._start = job, start  # of a request that awaits them
        self._is_over = False

    async def all(self, items: AsyncIterator[Heard], first: asyncio.Task[Heard] | None = None) -> AsyncGenerator[bytes]:
        """Yield the events, the last one that says why it ends included."""
        state, job_id = self._state, self._response.job_id
        try:
            yield self._numbers.first() or HEARTBEAT
            if first:
                yield self._of(await first)
            if not self._is_over:
                async for item in items:
                    yield self._of(item)
        except IntakeClosingError as error:
            self._is_over = True  # at this intake; the job goes on
            yield self._error(f"this intake is being stopped: {self._advice}", error.code)
        except StreamRestartedError as error:
            yield self._error(f"the answer was interrupted and begun anew: {self._advice}", error.code)
        except TimeoutError:
            yield self._error(late_message(state, job_id), "await_timeout")
        except BitladderError as error:
            yield self._error(error.public or str(error), error.code)

    def close(self) -> None:
        if self._job and not self._is_over:  # the client disconnected, or the stream cannot be completed
            abandon(self._state, self._job)

    @property
    def _advice(self) -> str:
        if not self._response.is_stored:
            return "send the request again"
        return f"its events are read with GET {response_url(self._state, self._response.id)}?stream=true"

    def _of(self, item: Heard) -> bytes:
        if not isinstance(item, Outcome):
            return self._numbers.of_chunk(item.data)
        self._is_over = True
        if self._job:
            record_served(self._state, self._job, item, self._start)
        return self._numbers.last(item)

    def _error(self, message: str, code: str) -> bytes:
        self._state.metrics.broken_streams(code).inc()
        log.warning("stream failed", code=code, job_id=self._response.job_id)
        return self._numbers.error(message, code)
