"""Dead letters over HTTP: list, show, release and drop them."""

from __future__ import annotations

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import RequestError
from bitladder.queue.json_views.dead_letter_answers import (
    MAX_AGE_S,
    DeadLetterSelection,
    drop,
    list_entries,
    read_entry,
    release,
)
from dispatcher.http.request_parts import path_job_id, query_count, query_number, read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.ops.steering_handlers import operator_of
from dispatcher.state import intake_state

# Jobs that one answer lists; `total` says how many there are.
DEFAULT_LISTED, MAX_LISTED = 100, 1000


async def list_dead_letters(request: HttpRequest) -> Response:
    """List dead letters, the latest first; ?code=, ?queue=, ?older_than_s=, ?limit= (at most 1000)."""
    code, queue = request.query_params.get("code"), request.query_params.get("queue")
    limit = query_count(request, "limit", maximum=MAX_LISTED)
    age_s = query_number(request, "older_than_s", maximum=MAX_AGE_S)
    selection = DeadLetterSelection(code=code, queue=queue, older_than_s=age_s)
    listed = DEFAULT_LISTED if limit is None else limit
    return json_response(await list_entries(intake_state(request).queue, selection, listed))


async def get_dead_letter(request: HttpRequest) -> Response:
    """Show one dead letter with its request and its lost executions."""
    return json_response(await read_entry(intake_state(request).queue, path_job_id(request)))


async def release_dead_letters(request: HttpRequest) -> Response:
    """Queue the chosen jobs again, with all their attempts and a new deadline."""
    return json_response(
        await release(intake_state(request).queue, await _read_selection(request), operator_of(request))
    )


async def drop_dead_letters(request: HttpRequest) -> Response:
    """Take the chosen jobs out for good."""
    return json_response(await drop(intake_state(request).queue, await _read_selection(request), operator_of(request)))


async def _read_selection(request: HttpRequest) -> DeadLetterSelection:
    state = intake_state(request)
    body = await read_bytes(request, state.settings.intake, state.closing)
    try:
        selection = msgspec.json.decode(body, type=DeadLetterSelection)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            f"the body must be a JSON object with ids, code, queue, older_than_s, all, dry_run or reason: {error}"
        ) from error
    criteria = (selection.ids, selection.code, selection.queue, selection.older_than_s)
    if selection.all == any(criterion is not None for criterion in criteria):
        raise RequestError(
            'the body must name which jobs, by ids, code, queue or older_than_s, or say "all": true, and not both',
            param="all",
        )
    return selection
