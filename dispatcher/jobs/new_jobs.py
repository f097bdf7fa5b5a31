"""POST /v1/jobs: submit now, read the outcome later."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest

from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.body import endpoint_for, fields_of
from dispatcher.http.request_parts import read_bytes
from dispatcher.http.responses import Response
from dispatcher.openai.accepted import accepted_answer
from dispatcher.state import intake_state
from dispatcher.submission import route, submit


async def submit_job(request: HttpRequest) -> Response:
    """Accept a completion or chat body, recognised by its fields; `endpoint` and `lane` may be query parameters."""
    state = intake_state(request)
    body = await read_bytes(request, state.settings.intake, state.closing)
    accepted = route(state, request, endpoint_of(request, body), body, lane=lane_of_query(request))
    return accepted_answer(state, accepted.submission, await submit(state, accepted))


def endpoint_of(request: HttpRequest, body: bytes) -> Endpoint:
    """Return the endpoint that the query names, or that the body is for."""
    raw = request.query_params.get("endpoint")
    if raw is None:
        return endpoint_for(fields_of(body))
    try:
        return Endpoint(raw)
    except ValueError:
        raise RequestError(
            f"endpoint must be one of {', '.join(Endpoint)}, got {raw[:80]!r}", param="endpoint"
        ) from None


def lane_of_query(request: HttpRequest) -> Lane | None:
    """Return the lane that the query names."""
    raw = request.query_params.get("lane")
    try:
        return Lane(raw) if raw is not None else None
    except ValueError:
        raise RequestError(f"lane must be one of {', '.join(Lane)}, got {raw!r:.80}", param="lane") from None
