"""What every request passes: its id and its line in the log, a proxy's prefix, and job ids as they are quoted."""

from __future__ import annotations

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatcher.http.rate_headers import RATE
from dispatcher.http.request_log import RequestLog

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_PATHS_WITH_JOB_ID = (b"/v1/jobs/", b"/v1/dead-letters/")
_PATH_WITH_MODEL = b"/v1/models/"


class RequestIds:
    """Take the client's X-Request-Id, or make one, and answer and log with it, and with what is left of a rate."""

    def __init__(self, app: ASGIApp, *, logs_all: bool = False) -> None:
        self.app = app
        self._logs_all = logs_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        lines, logs_all = RequestLog(scope), self._logs_all

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = scope["state"].get(RATE, ())
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("latin-1")), *more]
            lines.see(message, logs_all=logs_all)
            await send(message)

        await self.app(scope, receive, send_with_id)


class BelowRootPath:
    """Take the prefix that a proxy serves this intake below (`intake.root_path`) off a path, where the proxy did not.

    The prefix is a setting, not X-Forwarded-Prefix: a client that comes past the proxy could write anything there, and
    would read it in a link.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self._prefix = root_path.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or b""
        if self._prefix and raw.startswith(self._prefix + b"/"):
            # Nothing in a prefix needs quoting, so it is as long in both.
            scope["raw_path"], scope["path"] = raw[len(self._prefix) :], scope["path"][len(self._prefix) :]
        await self.app(scope, receive, send)


class QuotedIds:
    """Match paths with a job id as the client quoted them, so that a slash in an id does not end it.

    A producer beside Redis may use any id: with slashes, blanks, or bytes that are no text. A model's name may have
    slashes, which some of OpenAI's libraries quote and others do not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or b""
        if raw.startswith(_PATHS_WITH_JOB_ID):
            scope["path"] = raw.decode("latin-1")
        elif raw.startswith(_PATH_WITH_MODEL) and not raw.endswith(b"/"):
            name = raw.removeprefix(_PATH_WITH_MODEL).replace(b"/", b"%2F")
            scope["path"] = (_PATH_WITH_MODEL + name).decode("latin-1")
        await self.app(scope, receive, send)
