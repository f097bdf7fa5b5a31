"""Job ids in paths. A producer beside Redis may use any: with slashes, blanks, or bytes that are no text."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from bitladder.ids import from_url

_PATHS = (b"/v1/jobs/", b"/v1/dead-letters/")


class QuotedIds:
    """Match these paths as the client quoted them: a slash in an id is none of the path's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or b""
        if raw.startswith(_PATHS):
            scope["path"] = raw.decode("latin-1")
        await self.app(scope, receive, send)


def read_job_id(request: HttpRequest) -> str:
    """Return the id in the path."""
    return from_url(request.path_params["job_id"])
