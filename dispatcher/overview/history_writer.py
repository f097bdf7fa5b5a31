"""Writes a point of the history every ten seconds, at one intake of all: at the one that has a lease in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from bitladder.errors import QueueUnreachableError
from bitladder.overview.history import RESOLUTIONS
from bitladder.overview.history_store import HistoryStore
from bitladder.overview.overview_reader import Sample
from bitladder.queue.server.outage import OUTAGE

_STEP_S = RESOLUTIONS[0].step_s


class HistoryWriter:
    """The part of one intake in the history."""

    def __init__(self, store: HistoryStore, take: Callable[[], Awaitable[Sample]]) -> None:
        self._store, self._take = store, take
        self._ahead_s = 0.0  # of the server's clock, before ours

    async def run(self) -> None:
        """Write until cancelled; then another intake may go on at once."""
        try:
            while True:
                # In the middle of a span: no two samples lie in one span, and none has two, however clocks jitter.
                await asyncio.sleep(_STEP_S - (time.time() + self._ahead_s - _STEP_S / 2) % _STEP_S)
                try:
                    await self.tick()
                except QueueUnreachableError as error:
                    OUTAGE.warn("no point of the history", error=str(error))
        finally:
            with contextlib.suppress(QueueUnreachableError):
                await self._store.give_up_lease()

    async def tick(self) -> None:
        """Write the point of now, where the lease is this intake's.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        if await self._store.takes_lease():
            sample = await self._take()
            self._ahead_s = sample.overview.at - time.time()
            await self._store.write(sample)
