"""GET /v1/jobs/{job_id}/stream: a job's tokens as server-sent events, from the start or after Last-Event-ID.

An event's id is <execution>-<chunk>-<place in the chunk>, so a client that reconnects misses no event and reads none
twice. (Server-sent events: WHATWG HTML, section 9.2.) A page that opens an EventSource cannot set the header: it may
name the event in the query, and the header that the browser sends when it reconnects is later than that.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest

from bitladder.contract import Chunk, Outcome, State
from bitladder.endpoints import Endpoint
from bitladder.errors import BitladderError, IntakeClosingError, RequestError
from bitladder.ids import in_url, readable
from bitladder.queue.waiting.outcomes import Heard
from bitladder.queue.waiting.reading import StreamRestartedError
from dispatcher.http.closing import events_of, last_event_id
from dispatcher.http.request_parts import path_job_id
from dispatcher.http.responses import EventStream, Response
from dispatcher.jobs.existing_jobs import own_job
from dispatcher.openai.event_forms import restart_event, route_of
from dispatcher.openai.token_stream import broken_event, closing_event
from dispatcher.state import IntakeState, intake_state

_EVENT_ID = re.compile(r"(\d{1,15})-(\d{1,15})-(\d{1,6})")


async def get_events(request: HttpRequest) -> Response:
    """Stream a job that was submitted with "stream": true."""
    state = intake_state(request)
    job_id = path_job_id(request)
    fence, number, place = _last_event(request)
    view = await own_job(request, state, job_id)
    is_stream = view.outcome.chunks > 0 if view.outcome else bool(view.request and view.request.stream)
    if not is_stream and not (view.outcome and view.outcome.state is not State.FINISHED):
        raise RequestError(f'job {readable(job_id)} has no tokens to read: submit it with "stream": true', param="id")
    # The chunk of the last event is read again: there may be more events in it.
    timeout_s = state.settings.intake.await_timeout_s
    items = state.inbox.follow(job_id, timeout_s, (fence, max(0, number - 1)))
    endpoint = view.request.endpoint if view.request else Endpoint.COMPLETIONS
    events = _events(state, items, job_id, endpoint, (fence, number, place))
    headers = {"X-Job-Id": in_url(job_id)}
    return EventStream(events, headers, heartbeat_s=state.settings.intake.heartbeat_s)


async def _events(
    state: IntakeState, items: AsyncGenerator[Heard], job_id: str, endpoint: Endpoint, last: tuple[int, int, int]
) -> AsyncGenerator[bytes]:
    read = None
    try:
        async with contextlib.aclosing(items):
            async for item in state.closing.interruptible(items, job_id):
                if isinstance(item, Outcome):
                    if end := closing_event(item, endpoint):
                        yield end
                else:
                    endpoint = route_of(item.data)
                    yield _numbered(item, skip=last[2] if (item.fence, item.number) == last[:2] else 0)
                    read = item
    except IntakeClosingError:
        last_id = last_event_id(read) if read else "-".join(map(str, last))
        yield restart_event(endpoint, job_id, state.stream_url(job_id), last_id)
    except StreamRestartedError:
        link = state.stream_url(job_id)
        message = f"the answer was interrupted and begun anew: GET {link} without Last-Event-ID reads it from its start"
        yield broken_event(state, StreamRestartedError(message), job_id, endpoint)
    except (TimeoutError, BitladderError) as error:
        yield broken_event(state, error, job_id, endpoint)


def _numbered(chunk: Chunk, *, skip: int) -> bytes:
    """Return the events of a chunk, each with its id, without the first `skip`."""
    numbered = enumerate(events_of(chunk), 1)
    return b"".join(
        b"id: %d-%d-%d\n%s\n\n" % (chunk.fence, chunk.number, place, event) for place, event in numbered if place > skip
    )


def _last_event(request: HttpRequest) -> tuple[int, int, int]:
    name, raw = "Last-Event-ID", request.headers.get("last-event-id", "").strip()
    if not raw:
        name, raw = "last_event_id", request.query_params.get("last_event_id", "").strip()
    if not raw:
        return 0, 0, 0
    if match := _EVENT_ID.fullmatch(raw):
        return int(match[1]), int(match[2]), int(match[3])
    raise RequestError(
        f"{name} must be the id of an event of this stream, <execution>-<chunk>-<place>, got {raw[:40]!r}", param=name
    )
