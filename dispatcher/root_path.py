"""The path that a proxy serves this intake below (`intake.root_path`): some take it off a request, others cannot.

It is a setting, not X-Forwarded-Prefix: who comes past the proxy could write anything there, and read it in a link.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class BelowRootPath:
    """Take a request's path as if the proxy had taken the prefix off, where it has not."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self._prefix = root_path.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or b""
        if self._prefix and raw.startswith(self._prefix + b"/"):
            # Nothing in a prefix needs quoting, so it is as long in both.
            scope["raw_path"], scope["path"] = raw[len(self._prefix) :], scope["path"][len(self._prefix) :]
        await self.app(scope, receive, send)
