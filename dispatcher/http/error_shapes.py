"""Errors in Anthropic's shape, for the routes that are Anthropic's: {"type": "error", "error": {type, message}}."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitladder.endpoints import Endpoint, Errors

_PATHS = frozenset(endpoint.value for endpoint in Endpoint if endpoint.row.errors is Errors.ANTHROPIC)
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong."""

    type: str
    message: str


class AnthropicError(msgspec.Struct, frozen=True, kw_only=True):
    """An error in Anthropic's shape."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail


class AnthropicErrors:
    """Gives the errors of Anthropic's routes their shape, whoever has written them: a handler, or the engine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_shaped = scope["type"] == "http" and scope["path"] in _PATHS
        await self._app(scope, receive, _shaping(send) if is_shaped else send)


def _shaping(send: Send) -> Send:
    start: Message | None = None  # of an error, which is held back until its body is there
    body = b""

    async def shape(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start" and message["status"] >= 400:
            start = message
        elif start is None:
            await send(message)
        else:
            body += message.get("body", b"")
            if not message.get("more_body", False):
                shaped = anthropic_error(start["status"], body)
                length = str(len(shaped)).encode()
                others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                await send({**start, "headers": [*others, (b"content-length", length)]})
                await send({"type": "http.response.body", "body": shaped})

    return shape


def anthropic_error(status: int, body: bytes) -> bytes:
    """Return an error, which may have OpenAI's shape, in Anthropic's."""
    message, kind = message_of(body), _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return msgspec.json.encode(AnthropicError(error=AnthropicErrorDetail(type=kind, message=message)))


def message_of(body: bytes) -> str:
    """Return the message of an error in any of the shapes that engines write."""
    try:
        error: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")
    while isinstance(error, dict):
        error = next((error[name] for name in ("error", "message", "detail") if error.get(name)), "")
    return error if isinstance(error, str) else str(error)
