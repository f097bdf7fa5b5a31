"""How exceptions that leave a handler are answered."""

from __future__ import annotations

import math
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.routing import Match, Route

from bitladder.errors import AcceptanceUnknownError, BitladderError
from dispatcher.auth import Authenticator
from dispatcher.http.content_coding import CODINGS
from dispatcher.http.problems import FINAL, problem
from dispatcher.http.request_log import about_defect, note_error
from dispatcher.http.responses import Response

# OpenAI's older clients obey a Retry-After up to here; with a longer one they would repeat after half a second.
_MAX_OBEYED_S = 60
# Characters of a path in a message.
_MAX_SHOWN = 200


async def on_bitladder_error(request: HttpRequest, error: Exception) -> Response:
    """Answer one of bitladder's errors."""
    assert isinstance(error, BitladderError)  # noqa: S101  (registered for this type)
    intake = request.app.state.intake
    intake.metrics.refused(error.code).inc()
    note_error(request.scope, error)
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
    if error.status == 415:
        headers = {"Accept-Encoding": ", ".join(CODINGS)}
    if error.status == 401:
        headers = {"WWW-Authenticate": 'Bearer realm="bitladder"'}
    if error.status == 501:  # OpenAI's libraries repeat every 5xx
        headers = dict(FINAL)
    authenticator: Authenticator = intake.authenticator
    message = str(error) if authenticator.sees_details(request.scope["headers"]) else error.public or str(error)
    return problem(error.status, message, error.code, param=getattr(error, "param", None), headers=headers)


async def on_http_error(request: HttpRequest, error: Exception) -> Response:
    """Answer unknown routes and methods in the same form, in OpenAI's words."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for this type)
    asked, headers = f"({request.method} {request.scope['path'][:_MAX_SHOWN]})", dict(error.headers or {})
    if error.status_code == 404:
        return problem(404, f"Invalid URL {asked}", "unknown_url", headers=headers)
    if error.status_code == 405:  # Starlette names the methods of the first route at this path only
        headers["Allow"] = ", ".join(sorted(_methods(request)))
        message = f"Invalid method for URL {asked}: it takes {headers['Allow']}"
        return problem(405, message, "method_not_allowed", headers=headers)
    code = HTTPStatus(error.status_code).name.lower()
    return problem(error.status_code, f"{error.detail} {asked}", code, headers=headers)


def _methods(request: HttpRequest) -> set[str]:
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    paths = [route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in routes if route.path in paths[:1] for method in route.methods or ()}


async def on_defect(request: HttpRequest, error: Exception) -> Response:
    """Answer an unexpected exception in the same form; the server logs it. A repeat would meet it again."""
    del error
    about_defect(request.scope)
    headers = FINAL | {"X-Request-Id": request.state.request_id}  # nothing behind this handler adds it
    return problem(500, "an internal error; the log has it under this request's id", "internal_error", headers=headers)
