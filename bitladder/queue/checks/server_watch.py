"""Ask a server again and again whether it serves: readiness follows, and the log has one line for each change."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import structlog

from bitladder.errors import BitladderError, ConfigError, QueueUnreachableError
from bitladder.queue.checks.server_check import RefusedError

log = structlog.get_logger()
POLL_INTERVAL_S = 1.0


class ServerWatch:
    """Whether the server serves, as `check` says; `on_change` is called when that changes."""

    def __init__(self, check: Callable[[], Awaitable[None]], on_change: Callable[[], None] = lambda: None) -> None:
        self._check, self._on_change = check, on_change
        self._since_s = 0.0
        self.refusal: BitladderError | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with contextlib.suppress(QueueUnreachableError):  # those that need an answer say so
                await self.look()
            await asyncio.sleep(POLL_INTERVAL_S)

    async def look(self) -> None:
        """Look now.

        Raises:
            QueueUnreachableError: the server does not serve, or does not answer.

        """
        try:
            await self._check()
        except (ConfigError, RefusedError) as error:
            self._note(error)
            raise QueueUnreachableError(str(error)) from error
        self._note(None)

    def _note(self, refusal: BitladderError | None) -> None:
        was, self.refusal = self.refusal, refusal
        if refusal and not was:
            self._since_s = time.monotonic()
            log.error("redis cannot serve", error=str(refusal))
        elif was and not refusal:
            log.info("redis serves again", after_s=round(time.monotonic() - self._since_s, 1))
        if bool(was) != bool(refusal):
            self._on_change()
