"""GET /v1/overview and its stream: the state of the whole service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest

from bitladder.errors import IntakeClosingError
from dispatcher.http.responses import EventStream, Response, json_response
from dispatcher.state import IntakeState, intake_state

# When a client of the stream should come back to another intake.
_RETRY = b"retry: 1000\n\n"


async def get_overview(request: HttpRequest) -> Response:
    """Show one sample, less than a second old."""
    return json_response((await intake_state(request).overview.take()).overview)


async def stream_overview(request: HttpRequest) -> Response:
    """Send a sample a second, until the client leaves or the intake is stopped."""
    state = intake_state(request)
    state.overview.open()
    return EventStream(_events(state), {}, heartbeat_s=state.settings.intake.heartbeat_s, on_close=state.overview.close)


async def _events(state: IntakeState) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(state.overview.events()) as events:
        try:
            async for event in state.closing.interruptible(events, ""):
                yield event
        except IntakeClosingError:
            yield _RETRY
