"""Orders of operators over HTTP, what is paused, and the audit log."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest

from bitladder.queue.json_views.steering.audit_log import read_audit
from bitladder.queue.json_views.steering.orders import carry_out
from bitladder.queue.json_views.steering.pausing import list_pauses
from dispatcher.http.request_parts import query_count, read_bytes
from dispatcher.http.responses import Handler, Response, json_response
from dispatcher.state import intake_state

DEFAULT_LISTED, MAX_LISTED = 100, 1000
_NO_KEY = "(no key)"  # none is required


def operator_of(request: HttpRequest) -> str:
    """Return who gives an order: the name of the API key."""
    return request.state.caller.key or _NO_KEY


def ordering(word: str) -> Handler:
    """Return the handler of one kind of order."""

    async def handle(request: HttpRequest) -> Response:
        state = intake_state(request)
        body = await read_bytes(request, state.settings.intake, state.closing)
        return json_response(await carry_out(state.queue, word, body, operator_of(request)))

    return handle


async def get_pauses(request: HttpRequest) -> Response:
    """List what is paused."""
    return json_response(await list_pauses(intake_state(request).queue))


async def get_audit(request: HttpRequest) -> Response:
    """List orders, the latest first; ?limit= (at most 1000), ?after=."""
    limit = query_count(request, "limit", minimum=1, maximum=MAX_LISTED)
    after = request.query_params.get("after") or None
    return json_response(await read_audit(intake_state(request).queue, limit or DEFAULT_LISTED, after))
