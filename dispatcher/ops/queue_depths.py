"""GET /v1/queues: what waits and runs."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest

from bitladder.queue.json_views.queue_list import read_queues
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state


async def get_queues(request: HttpRequest) -> Response:
    """Show depth, age of the oldest job, jobs in flight and live workers, per model, tier and queue."""
    return json_response(await read_queues(intake_state(request).queue))
