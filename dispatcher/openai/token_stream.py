"""An answer as server-sent events: the tokens as they come, and how the stream ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import structlog
from starlette.requests import Request as HttpRequest

from bitladder.contract import Chunk, Outcome, State
from bitladder.endpoints import Endpoint
from bitladder.errors import BitladderError, IntakeClosingError
from bitladder.ids import in_url, readable
from bitladder.queue.json_views.problem import problem_body
from bitladder.routing.accept import Accepted
from dispatcher.http.closing import last_event_id
from dispatcher.http.problems import FINAL, problem
from dispatcher.http.responses import HEARTBEAT, Response
from dispatcher.openai.awaiting import (
    late_message,
    record_served,
)
from dispatcher.openai.event_forms import (
    done_event,
    error_event,
    number_of,
    restart_event,
    with_service_tier,
)
from dispatcher.openai.stream_start import Begun, StreamForm, begin_stream
from dispatcher.state import IntakeState
from dispatcher.submission import abandon

log = structlog.get_logger()
# A comment: no client takes it for a token.
BELOW_FLOOR = b": x-served-below-floor: true\n\n"


async def stream_answer(request: HttpRequest, state: IntakeState, accepted: Accepted) -> Response:
    """Answer with the tokens as they arrive."""

    async def repeated(job_id: str) -> Response:
        return _repeated_stream(state, job_id)

    def events_of(begun: Begun) -> _Tokens:
        return _Tokens(state, begun, accepted.service_tier)

    link = state.stream_url(accepted.submission.job_id)
    return await begin_stream(request, state, accepted, StreamForm(events_of, repeated, link))


def _repeated_stream(state: IntakeState, job_id: str) -> Response:
    link = state.stream_url(job_id)
    message = (
        f"a streamed request is not streamed twice: GET {link} reads its events, all or those behind "
        f"Last-Event-ID; its outcome is at GET {state.job_url(job_id)}"
    )
    headers = {"X-Job-Id": in_url(job_id), "Location": link} | FINAL
    return problem(409, message, "stream_already_requested", param="Idempotency-Key", headers=headers)


class _Tokens:
    """The events of one stream, and what becomes of its job when the stream is closed."""

    def __init__(self, state: IntakeState, begun: Begun, service_tier: str) -> None:
        self._state, self._job, self._first, self._items, self._start = state, *begun
        self._service_tier = service_tier
        self._is_over = False  # the job needs nobody who reads it

    async def events(self) -> AsyncGenerator[bytes]:
        state, job, endpoint = self._state, self._job, self._job.request.endpoint
        read, number = None, 0
        try:
            if not self._first.done():
                yield HEARTBEAT
            item = await self._first
            while isinstance(item, Chunk):
                yield with_service_tier(endpoint, item.data, self._service_tier) if self._service_tier else item.data
                read, number = item, number + number_of(item.data)
                item = await anext(self._items)
            self._is_over = True
            record_served(state, job, item, self._start)
            if item.served_below_floor:  # the headers went before that was known
                yield BELOW_FLOOR
            if end := closing_event(item, endpoint, number):
                yield end
        except IntakeClosingError:
            self._is_over = True  # at this intake; the job goes on
            yield restart_event(endpoint, job.job_id, state.stream_url(job.job_id), last_event_id(read), number)
        except (TimeoutError, BitladderError) as error:
            self._is_over = read is None and isinstance(error, TimeoutError)  # all of it can be read later
            yield broken_event(state, error, job.job_id, endpoint, number, job.request.request_id)

    def close(self) -> None:
        if not self._is_over:  # the client disconnected, or the stream cannot be completed
            abandon(self._state, self._job)


def closing_event(outcome: Outcome, endpoint: Endpoint, number: int = 0) -> bytes:
    """Return the last event of a stream: [DONE], or why the job did not finish; `number`: of the events before it."""
    if outcome.state is State.FINISHED:
        return done_event(endpoint)
    if outcome.status >= 500:
        log.warning("stream failed", status=outcome.status, code=outcome.code, request_id=outcome.request_id)
    code = outcome.code or ""
    body = outcome.answer or problem_body(outcome.status, outcome.error or "", code)
    return error_event(endpoint, outcome.status, body, code, number)


def broken_event(
    state: IntakeState,
    error: TimeoutError | BitladderError,
    job_id: str,
    endpoint: Endpoint,
    number: int = 0,
    request_id: str = "",
) -> bytes:
    """Return the last event of a stream whose outcome could not be waited for, or whose chunks are not all there."""
    code = error.code if isinstance(error, BitladderError) else "await_timeout"
    state.metrics.broken_streams(code).inc()
    log.warning("stream failed", code=code, job_id=readable(job_id), request_id=request_id)
    status, message = 504, late_message(state, job_id)
    if isinstance(error, BitladderError):
        status, message = error.status, error.public or str(error)
    return error_event(endpoint, status, problem_body(status, message, code), code, number)
