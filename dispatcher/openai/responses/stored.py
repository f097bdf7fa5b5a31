"""Stored responses: read, followed, cancelled, deleted, and the items of their input."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from bitladder.contract import JobView
from bitladder.errors import IntakeClosingError, NotFoundError, RequestError
from dispatcher.auth import check_may_change
from dispatcher.http.problems import FINAL, problem
from dispatcher.http.request_parts import query_count, query_flag
from dispatcher.http.responses import Handler, Response, json_response
from dispatcher.openai.awaiting import unless_gone
from dispatcher.openai.responses.record import StoredResponse, is_response_id
from dispatcher.openai.responses.record_fields import has_restarted
from dispatcher.openai.responses.response_stream import follow_events
from dispatcher.state import IntakeState, intake_state

# How long a worker may take to end what is cancelled, before the answer says that it still runs.
_CANCEL_WAIT_S = 5.0
DEFAULT_ITEMS, MAX_ITEMS = 20, 100
_MAX_NUMBER = 2**53
# What stands in paths where ids do.
_WORDS = ("compact", "input_tokens")


class DeletedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is there no longer."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class ItemPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the items of a response's input."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


async def find_response(
    request: HttpRequest, state: IntakeState, response_id: str
) -> tuple[JobView, StoredResponse] | None:
    """Return a stored response that the caller may see; None: there is none, as for another tenant's."""
    view = await state.view(response_id) if is_response_id(response_id) else None
    if view is None or not request.state.caller.sees(view.tenant):
        return None
    response = StoredResponse.of_view(view)
    return (view, response) if response else None


async def get_response(request: HttpRequest) -> Response:
    """Show a response as it is now; with ?stream=true its events, from the first one or behind `starting_after`."""
    state = intake_state(request)
    view, response = await _found(request, state)
    after = query_count(request, "starting_after", maximum=_MAX_NUMBER)
    if not query_flag(request, "stream"):
        return json_response(response.of_state(view.state, view.outcome))
    if not (view.request and view.request.stream):
        raise RequestError(
            f'response {response.id} has no events to read: create it with "stream": true', param="stream"
        )
    if after is not None and await has_restarted(state.queue, response.job_id):
        # The number may be one of an execution that is lost, whose events are not stored.
        message = "the answer was interrupted and begun anew: read its events from the start, without starting_after"
        return problem(409, message, "stream_restarted", param="starting_after", headers=FINAL)
    return follow_events(state, response, -1 if after is None else after)


async def cancel_response(request: HttpRequest) -> Response:
    """Cancel a response; one that has ended stays as it is."""
    state = intake_state(request)
    view, response = await _found(request, state)
    check_may_change(request, view.tenant)
    if not view.state.is_terminal and await state.queue.cancel(response.job_id) == "requested":
        await _end_of(request, state, response)
    view, response = await _found(request, state)
    return json_response(response.of_state(view.state, view.outcome))


async def delete_response(request: HttpRequest) -> Response:
    """Delete a response and all that is kept of it; one that has not ended is cancelled first."""
    state = intake_state(request)
    view, response = await _found(request, state)
    check_may_change(request, view.tenant)
    if await state.queue.forget(response.job_id) == "requested":
        await _end_of(request, state, response)
        if await state.queue.forget(response.job_id) == "requested":
            message = f"response {response.id} is being cancelled: delete it once it has ended"
            return problem(409, message, "response_in_progress", headers={"Retry-After": "1"})
    return json_response(DeletedResponse(id=response.id))


async def list_input_items(request: HttpRequest) -> Response:
    """List the items that the engine got, those of earlier responses included, the latest first."""
    state = intake_state(request)
    _, response = await _found(request, state)
    limit = query_count(request, "limit", minimum=1, maximum=MAX_ITEMS)
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestError(f"order must be asc or desc, got {order[:40]!r}", param="order")
    items = response.input_items()
    return json_response(
        page_of(
            items if order == "asc" else items[::-1],
            after=request.query_params.get("after", ""),
            limit=DEFAULT_ITEMS if limit is None else limit,
        )
    )


def page_of(items: list[Any], *, after: str, limit: int) -> ItemPage:
    """Return the items behind one.

    Raises:
        RequestError: there is no such item.

    """
    ids = [str(item.get("id")) if isinstance(item, dict) else "" for item in items]
    if after and after not in ids:
        raise RequestError(f"after must be the id of an item of this list, got {after[:80]!r}", param="after")
    start = ids.index(after) + 1 if after else 0
    page = slice(start, start + limit)
    shown = ids[page]
    return ItemPage(
        data=items[page],
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
        has_more=start + limit < len(items),
    )


def not_implemented(what: str, instead: str) -> Handler:
    """Return the handler of a route that OpenAI's API has and this one does not."""

    async def handle(request: HttpRequest) -> Response:
        del request
        return problem(501, f"{what} is not implemented: {instead}", "not_implemented", headers=FINAL)

    return handle


async def _found(request: HttpRequest, state: IntakeState) -> tuple[JobView, StoredResponse]:
    response_id = request.path_params["response_id"]
    if response_id in _WORDS:  # a route of its own, which takes other methods
        raise HTTPException(405)
    shown = await find_response(request, state, response_id)
    if shown is None:
        raise NotFoundError(f"Response with id '{response_id[:80]}' not found.", param="response_id")
    return shown


async def _end_of(request: HttpRequest, state: IntakeState, response: StoredResponse) -> None:
    with contextlib.suppress(IntakeClosingError), state.closing.interrupts():
        await unless_gone(request, state.inbox.wait(response.job_id, _CANCEL_WAIT_S))
