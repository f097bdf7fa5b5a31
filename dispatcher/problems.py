"""Errors as OpenAI's clients expect them: {"error": {message, type, param, code}}."""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.routing import Match, Route

from bitladder.contract import Outcome
from bitladder.errors import AcceptanceUnknownError, BitladderError
from dispatcher.auth import Authenticator
from dispatcher.responses import Response

# OpenAI's older clients obey a Retry-After up to here; with a longer one they would repeat after half a second.
_MAX_OBEYED_S = 60

# For an answer that a retry would not change.
FINAL = {"X-Should-Retry": "false"}

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
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


async def on_bitladder_error(request: HttpRequest, error: Exception) -> Response:
    """Answer one of bitladder's errors."""
    assert isinstance(error, BitladderError)  # noqa: S101  (registered for this type)
    intake = request.app.state.intake
    intake.metrics.refused(error.code).inc()
    headers = {}
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers = {
            "Retry-After": str(math.ceil(retry_after_s)),
            "Retry-After-Ms": str(int(retry_after_s * 1000)),
            "X-Should-Retry": "true" if retry_after_s <= _MAX_OBEYED_S else "false",
        }
    if isinstance(error, AcceptanceUnknownError):
        headers |= {"X-Job-Id": error.job_id, "Location": intake.job_url(error.job_id)}
    if error.status == 408:
        headers = {"Connection": "close"}  # the rest of the body may never come
    if error.status == 401:
        headers = {"WWW-Authenticate": 'Bearer realm="bitladder"'}
    authenticator: Authenticator = intake.authenticator
    message = str(error) if authenticator.sees_details(request.scope["headers"]) else error.public or str(error)
    return problem(error.status, message, error.code, param=getattr(error, "param", None), headers=headers)


async def on_http_error(request: HttpRequest, error: Exception) -> Response:
    """Answer unknown routes and methods in the same form."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for this type)
    message = f"{request.method} {request.scope['path'][:200]}: {error.detail}"
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of the first route at this path only
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(error.status_code, message, HTTPStatus(error.status_code).name.lower(), headers=headers)


def _methods(request: HttpRequest) -> set[str]:
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    paths = [route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in routes if route.path in paths[:1] for method in route.methods or ()}


async def on_defect(request: HttpRequest, error: Exception) -> Response:
    """Answer an unexpected exception in the same form; the server logs it. A repeat would meet it again."""
    del request, error
    return problem(500, "an internal error; the log has it under this request's id", "internal_error", headers=FINAL)
