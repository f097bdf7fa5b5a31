"""The log's lines about requests: those refused for load or trouble (429, 503), those that failed (other 5xx), or all.

Neither headers, path, query nor anything of a body is among the fields, but the route and the error's code.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from starlette.types import Message, Scope

log = structlog.get_logger()
# An engine's own error may be as large as its answers.
_MAX_READ = 65_536
_MAX_SHOWN = 300


class _Code(msgspec.Struct):
    code: str | int | None = None


class _Error(msgspec.Struct):
    error: _Code


class RequestLog:
    """Sees what is sent in answer to one request."""

    __slots__ = ("_is_refused", "_scope", "_start_s", "_status")

    def __init__(self, scope: Scope) -> None:
        self._scope, self._start_s = scope, time.perf_counter()
        self._status, self._is_refused = 0, False

    def see(self, message: Message, *, logs_all: bool) -> None:
        """Take the next message of the answer."""
        if message["type"] == "http.response.start":
            self._status = status = message["status"]
            self._is_refused = status == 429 or (status >= 500 and not self._is_probe())
            if logs_all:
                taken_ms = round((time.perf_counter() - self._start_s) * 1000, 1)
                log.info("request answered", status=status, taken_ms=taken_ms, **_words(self._scope))
        elif self._is_refused and message["type"] == "http.response.body":
            self._is_refused = False  # its first part tells all
            event = "request refused" if self._status in (429, 503) else "request failed"
            code = _code_in(message.get("body", b""))
            error = self._scope["state"].get("error")
            more = {"error": error[:_MAX_SHOWN]} if error else {}
            log.warning(event, status=self._status, code=code, **_words(self._scope), **more)

    def _is_probe(self) -> bool:
        """Return whether readiness was asked for: why there is none is said by a line of its own, not at each look."""
        return self._status == 503 and getattr(self._scope.get("route"), "path", None) == "/readyz"


def note_error(scope: Scope, error: Exception) -> None:
    """Have the line about a refused request say why, where the client may not be told."""
    scope["state"]["error"] = str(error)


def about_defect(scope: Scope) -> None:
    """Have the line with a defect's traceback, which the server logs, say which request it was."""
    structlog.contextvars.bind_contextvars(status=500, code="internal_error", **_words(scope))


def _words(scope: Scope) -> Mapping[str, Any]:
    """Return what says which request it was."""
    state = scope["state"]
    path, caller = getattr(scope.get("route"), "path", None), state.get("caller")
    tenant = {"tenant": caller.tenant} if caller else {}
    trace = {"trace_id": state["trace_id"]} if "trace_id" in state else {}
    return {"method": scope["method"], "path": path, "request_id": state["request_id"], **trace, **tenant}


def _code_in(body: bytes) -> str | int | None:
    try:
        return msgspec.json.decode(body[:_MAX_READ], type=_Error).error.code
    except (msgspec.DecodeError, RecursionError):
        return None
