"""Whether this process reaches its Redis: says when that ends, and when it begins again.

New connections tell: after an outage each command needs one. A server that starts together with this process, as in
`bitladder up`, is given a moment.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import structlog

from bitladder.errors import QueueUnreachableError

log = structlog.get_logger()
# How long a server that was never reached may take to start.
START_GRACE_S = 5.0
_PAUSE_S = 0.05


class Outage:
    """The present outage, if there is one. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._is_logged = self._was_reached = False

    def failed(self, error: Exception) -> None:
        """Note that no connection could be made."""
        now = time.monotonic()
        with self._lock:
            self._began_s = now if self._began_s is None else self._began_s
            is_early = not self._was_reached and now - self._began_s < START_GRACE_S
            if is_early or self._is_logged or not structlog.is_configured():  # a command shows errors in its own way
                return
            self._is_logged = True
        log.warning("Redis is unreachable", error=str(error))

    def ended(self) -> None:
        """Note that a connection was made."""
        with self._lock:
            began_s, was_logged = self._began_s, self._is_logged
            self._began_s, self._is_logged, self._was_reached = None, False, True
        if was_logged and began_s is not None:
            after_s = round(time.monotonic() - began_s, 1)
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
