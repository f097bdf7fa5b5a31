"""GET and PATCH /v1/settings: the settings that change while all processes run, and who changed them."""

from __future__ import annotations

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import ConfigError, RequestError
from bitladder.queue.json_views.settings_answers import (
    MAX_LISTED,
    SettingsChange,
    change_settings,
    list_settings,
    read_history,
)
from bitladder.settings.access import Caller
from dispatcher.http.request_parts import query_count, query_flag, read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.state import intake_state

DEFAULT_LISTED = 50


async def get_settings(request: HttpRequest) -> Response:
    """List the settings that may be changed; ?live=true: those that are."""
    state = intake_state(request)
    answer = await list_settings(state.live_store, state.watch.files, only_live=query_flag(request, "live"))
    return json_response(answer)


async def change_live_settings(request: HttpRequest) -> Response:
    """Change settings, or take changes back."""
    state, caller = intake_state(request), request.state.caller
    body = await read_bytes(request, state.settings.intake, state.closing)
    try:
        order = msgspec.json.decode(body, type=SettingsChange)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            f"the body must be a JSON object with set, unset, unset_all, reason, revision or dry_run: {error}"
        ) from error
    try:
        changed = await change_settings(state.live_store, state.watch.files, order, _who(caller), state.check_change)
    except ConfigError as error:
        raise RequestError(str(error)) from None
    return json_response(changed)


async def get_settings_history(request: HttpRequest) -> Response:
    """List the last changes, the latest first; ?limit= (at most 500)."""
    limit = query_count(request, "limit", minimum=1, maximum=MAX_LISTED) or DEFAULT_LISTED
    return json_response(await read_history(intake_state(request).live_store, limit))


def _who(caller: Caller) -> str:
    return f"key {caller.key}" if caller.key else "anybody (no API keys are required)"
