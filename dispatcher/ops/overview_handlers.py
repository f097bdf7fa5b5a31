"""GET /v1/overview, its stream and its history: the state of the whole service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest

from bitladder.errors import RequestError
from bitladder.overview.history import MAX_RANGE_S, read_range
from dispatcher.http.responses import EventStream, Response, json_response
from dispatcher.overview.sampler import OverviewSampler
from dispatcher.state import IntakeState, intake_state

DEFAULT_RANGE = "1h"
# When a client of the stream should come back to another intake.
_RETRY = b"retry: 1000\n\n"


async def get_overview(request: HttpRequest) -> Response:
    """Show one sample, less than a second old."""
    return json_response((await _sampler(request).take()).overview)


async def stream_overview(request: HttpRequest) -> Response:
    """Send a sample a second, until the client leaves or the intake is stopped."""
    state, sampler = intake_state(request), _sampler(request)
    sampler.open()
    events = _events(state, sampler)
    return EventStream(events, {}, heartbeat_s=state.settings.intake.heartbeat_s, on_close=sampler.close)


def _sampler(request: HttpRequest) -> OverviewSampler:
    """Return what samples this Redis; where there are several and no ?model= names one, what samples all."""
    state = intake_state(request)
    return state.overview_of_all if state.overview_of_all and not request.query_params.get("model") else state.overview


async def _events(state: IntakeState, sampler: OverviewSampler) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(sampler.events()) as events:
        # At once, and not with the requests that a stop waits for: those who watch are served as well elsewhere.
        async for event in events:
            yield event
            if state.closing.is_draining:
                yield _RETRY
                return


async def get_history(request: HttpRequest) -> Response:
    """Show the history of the last ?range=, in the finest resolution that is kept for so long."""
    text = request.query_params.get("range", DEFAULT_RANGE)
    range_s = read_range(text)
    if range_s is None:
        raise RequestError(
            f"range must be a number and s, m, h or d, from 60s to {MAX_RANGE_S // 86_400}d, got {text[:40]!r}",
            param="range",
        )
    return json_response(await intake_state(request).history.read(range_s))
