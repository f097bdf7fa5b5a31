"""An error as OpenAI's clients expect it: {"error": {message, type, param, code}}."""

from __future__ import annotations

import msgspec

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | int | None


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """An error in OpenAI's shape; an engine's own errors pass through."""

    error: ErrorDetail


def problem_body(status: int, message: str, code: str, param: str | None = None) -> bytes:
    """Return one error as JSON."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode(Error(error=ErrorDetail(message=message, type=kind, param=param, code=code)))
