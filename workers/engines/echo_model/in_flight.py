"""The requests in the echo engine together: after a crash none of them goes on, and in a hang all of them wait."""

from __future__ import annotations

import asyncio
import time

from workers.engines.errors import EngineLostError


class InFlight:
    """What the requests in the engine share: after a crash none of them goes on, and in a hang all of them wait."""

    def __init__(self) -> None:
        self.is_lost = False
        self._reason = ""
        self._hung_s: float | None = None
        self._waits: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Sleep, as a request does until its next token; raise as soon as the engine is lost."""
        if self.is_lost:
            raise self._error()
        is_hung = self._hung_s is not None
        if seconds <= 0 and not is_hung:
            return
        loop = asyncio.get_running_loop()
        wait = loop.create_future()
        self._waits.add(wait)
        timer = loop.call_later(max(0, seconds), self._wake, wait)
        try:
            await wait
        finally:
            timer.cancel()
            self._waits.discard(wait)

    def wake_all(self) -> None:
        """Let requests look again how long they have to wait: something has changed."""
        for wait in self._waits:
            self._wake(wait)

    def tokens(self) -> int:
        """Return a number that grows for as long as the engine works."""
        return int((time.monotonic() if self._hung_s is None else self._hung_s) * 1000)

    def hang(self) -> None:
        """Give no more tokens."""
        self._hung_s = time.monotonic()

    def end(self, reason: str) -> None:
        """End every request in flight with EngineLostError."""
        self.is_lost, self._reason = True, reason
        for wait in self._waits:
            if not wait.done():
                wait.set_exception(self._error())

    def _error(self) -> EngineLostError:
        return EngineLostError(f"the echo engine {self._reason}")

    def _wake(self, wait: asyncio.Future[None]) -> None:
        if self._hung_s is None and not wait.done():
            wait.set_result(None)
