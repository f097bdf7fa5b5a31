"""Whether Redis serves this process: says when that ends and why, when the reason changes, and when it is back.

New connections tell whether it can be reached: after an outage each command needs one. What watches it
(server_watch.py) tells whether it then serves. A server that starts together with this process, as in `bitladder up`,
is given a moment.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog

from bitladder.errors import QueueUnreachableError
from bitladder.logs.setup import flush_repeats
from bitladder.queue.server.refusals import refusal_of, refused

log = structlog.get_logger()
# How long a server that was never reached may take to start.
START_GRACE_S = 5.0
_PAUSE_S = 0.05


class _Trouble(NamedTuple):
    kind: str  # the same however it was noticed
    event: str
    level: int
    error: str


class Outage:
    """The present outage, if there is one. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_connections: _Trouble | None = None
        self._of_watch: _Trouble | None = None
        self._logged: _Trouble | None = None
        self._began_s, self._was_reached = 0.0, False

    def failed(self, error: Exception) -> None:
        """Note that no connection could be made."""
        if refusal := refusal_of(error):
            trouble = _Trouble(refusal.text, "Redis cannot serve", logging.ERROR, refused(refusal, error))
        else:
            trouble = _Trouble("", "Redis is unreachable", logging.WARNING, str(error))
        with self._lock:
            self._begin()
            self._of_connections = trouble
            self._of_watch = self._of_watch if refusal else None  # what was seen of a server that has gone
            is_early = not self._was_reached and time.monotonic() - self._began_s < START_GRACE_S
            if not is_early:
                self._say()

    def ended(self) -> None:
        """Note that a connection was made."""
        with self._lock:
            self._of_connections, self._was_reached = None, True
            self._say()

    def watched(self, refusal: Exception | None) -> None:
        """Note why the server does not serve, though it answers; None: it serves."""
        with self._lock:
            if refusal:
                self._begin()
                known = refusal_of(refusal.__cause__) if refusal.__cause__ else None
                kind = known.text if known else str(refusal)
                self._of_watch = _Trouble(kind, "Redis cannot serve", logging.ERROR, str(refusal))
            else:
                self._of_watch = None
            self._say()

    def warn(self, event: str, **fields: Any) -> None:  # noqa: ANN401  (whatever a line has)
        """Log what failed for want of Redis; where the log has said that already, at the level debug."""
        log.log(logging.DEBUG if self._logged else logging.WARNING, event, **fields)

    def _begin(self) -> None:
        if not self._of_connections and not self._of_watch:
            self._began_s = time.monotonic()

    def _say(self) -> None:
        """Log a change. In the lock: lines come in the order of what they tell."""
        was, now = self._logged, self._of_connections or self._of_watch
        if (was and was.kind) == (now and now.kind) or not structlog.is_configured():  # a command says errors itself
            return
        self._logged = now
        if now:
            log.log(now.level, now.event, error=now.error)
        else:
            flush_repeats()  # what was counted is from before
            after_s = round(time.monotonic() - self._began_s, 1)
            log.info("Redis is back after %g s", after_s, after_s=after_s)


OUTAGE = Outage()


async def check_at_start(check: Callable[[], Awaitable[None]]) -> None:
    """Run a check of Redis at the start of a process, again and again while the server may be starting itself.

    Raises:
        QueueUnreachableError: it does not answer after START_GRACE_S either.

    """
    end_s: float | None = None
    while True:
        try:
            return await check()
        except QueueUnreachableError:
            now = time.monotonic()
            end_s = now + START_GRACE_S if end_s is None else end_s
            if now > end_s:
                raise
        await asyncio.sleep(_PAUSE_S)
