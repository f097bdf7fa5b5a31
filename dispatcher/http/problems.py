"""Errors as OpenAI's clients expect them: {"error": {message, type, param, code}}."""

from __future__ import annotations

import msgspec

from bitladder.contract import Outcome
from dispatcher.http.responses import Response

# For an answer that a retry would not change.
FINAL = {"X-Should-Retry": "false"}

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


def problem(
    status: int, message: str, code: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return one error."""
    return Response(problem_body(status, message, code, param), status, headers, media_type="application/json")


def problem_body(status: int, message: str, code: str, param: str | None = None) -> bytes:
    """Return one error as JSON."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode(Error(error=ErrorDetail(message=message, type=kind, param=param, code=code)))


def outcome_problem(outcome: Outcome, headers: dict[str, str]) -> Response:
    """Return the error of a job that did not finish for the client that awaits it: the engine's own where there is one.

    The job is terminal, after all its attempts. OpenAI's clients repeat 408, 409, 429 and 5xx by themselves: each
    repeat would be a new job with attempts of its own.
    """
    headers = headers | FINAL
    if outcome.answer is not None:
        return Response(outcome.answer, outcome.status, headers, media_type="application/json")
    message, code = outcome.error or "the job did not finish", outcome.code or outcome.state
    return problem(outcome.status, message, code, headers=headers)
