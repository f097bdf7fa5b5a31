"""Ask a server again and again whether it serves: readiness follows, and the log (queue/server/outage.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from bitladder.errors import BitladderError, ConfigError, QueueUnreachableError
from bitladder.queue.checks.server_check import RefusedError
from bitladder.queue.server.outage import OUTAGE

POLL_INTERVAL_S = 1.0


class ServerWatch:
    """Whether the server serves, as `check` says; `on_change` is called when that changes."""

    def __init__(self, check: Callable[[], Awaitable[None]], on_change: Callable[[], None] = lambda: None) -> None:
        self._check, self._on_change = check, on_change
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
        OUTAGE.watched(refusal)
        if bool(was) != bool(refusal):
            self._on_change()
