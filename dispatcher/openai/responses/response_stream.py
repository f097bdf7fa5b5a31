"""A response's events as they come: of a request that awaits them, or read again from any number on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import structlog
from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome
from bitladder.errors import BitladderError, IntakeClosingError
from bitladder.queue.waiting.outcomes import Heard
from bitladder.queue.waiting.reading import StreamRestartedError
from bitladder.routing.accept import Accepted
from dispatcher.http.preferences import NO_PREFERENCES
from dispatcher.http.responses import HEARTBEAT, EventStream, Response
from dispatcher.idempotency import KeyInUseError, attaches, ended, in_use
from dispatcher.openai.awaiting import (
    late_message,
    record_served,
)
from dispatcher.openai.responses.event_numbers import EventNumbers
from dispatcher.openai.responses.record import StoredResponse
from dispatcher.openai.stream_start import Begun, StreamForm, begin_stream
from dispatcher.state import IntakeState
from dispatcher.submission import abandon

log = structlog.get_logger()


def response_url(state: IntakeState, response_id: str) -> str:
    """Return where clients find a stored response."""
    return f"{state.settings.intake.root_path}/v1/responses/{response_id}"


def follow_events(state: IntakeState, response: StoredResponse, after: int = -1) -> EventStream:
    """Answer with the events of a stored response behind that number. Who leaves does not end it."""

    async def events() -> AsyncGenerator[bytes]:
        # A response in the background may wait for hours: whoever follows it sees heartbeats meanwhile.
        async with contextlib.aclosing(state.inbox.follow(response.job_id, state.settings.queue.max_wait_s)) as items:
            shown = _Events(state, response, after, state.closing.interruptible(items, response.job_id))
            async for part in shown.events():
                yield part

    response = response.without_input()
    return EventStream(events(), {"X-Job-Id": response.job_id}, heartbeat_s=state.settings.intake.heartbeat_s)


async def stream_response(request: HttpRequest, state: IntakeState, accepted: Accepted) -> Response:
    """Answer with the events as they arrive. A client that leaves ends the job, as with a stream of a chat."""
    job = accepted.submission
    response = StoredResponse(job.job_id, job.request, job.queue).without_input()

    async def repeated(job_id: str) -> Response:
        return await _repeated(request, state, StoredResponse(job_id, job.request, job.queue))

    def events_of(begun: Begun) -> _Events:
        return _Events(state, response, -1, begun.items, begun)

    return await begin_stream(
        request, state, accepted, StreamForm(events_of, repeated, response_url(state, response.id))
    )


async def _repeated(request: HttpRequest, state: IntakeState, response: StoredResponse) -> Response:
    """Return the events of the first request with an idempotency key, once they are all there: the same answer."""
    if not attaches(request, NO_PREFERENCES):
        try:
            await ended(state, response.job_id)
        except KeyInUseError as error:
            return in_use(state, error)
    return follow_events(state, response)


class _Events:
    """The events of one answer, and what becomes of its job when the client leaves."""

    def __init__(
        self,
        state: IntakeState,
        response: StoredResponse,
        after: int,
        items: AsyncIterator[Heard],
        begun: Begun | None = None,
    ) -> None:
        self._state, self._response, self._items = state, response, items
        self._numbers = EventNumbers(response, after)
        self._begun = begun  # of a request that awaits them
        self._is_over = False

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the events, the last one that says why it ends included."""
        state, job_id = self._state, self._response.job_id
        try:
            yield self._numbers.first() or HEARTBEAT
            if self._begun:
                yield self._of(await self._begun.first)
            if not self._is_over:
                async for item in self._items:
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
        if self._begun and not self._is_over:  # the client disconnected, or the stream cannot be completed
            abandon(self._state, self._begun.job)

    @property
    def _advice(self) -> str:
        if not self._response.is_stored:
            return "send the request again"
        return f"its events are read with GET {response_url(self._state, self._response.id)}?stream=true"

    def _of(self, item: Heard) -> bytes:
        if not isinstance(item, Outcome):
            return self._numbers.of_chunk(item.data)
        self._is_over = True
        if self._begun:
            record_served(self._state, self._begun.job, item, self._begun.start)
        return self._numbers.last(item)

    def _error(self, message: str, code: str) -> bytes:
        self._state.metrics.broken_streams(code).inc()
        request_id = self._begun.job.request.request_id if self._begun else ""
        log.warning("stream failed", code=code, job_id=self._response.job_id, request_id=request_id)
        return self._numbers.error(message, code)
