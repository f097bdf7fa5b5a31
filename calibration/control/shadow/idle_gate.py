"""Gives requests out while the tier has slots to spare, and takes them back when traffic comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from calibration.control.shadow.idleness import TierLoad, obstacle, traffic

T = TypeVar("T")
Look = Callable[[], Awaitable[dict[str, TierLoad]]]
# How soon a request is taken back, and how often one that waits looks again; looks at the same moment are shared.
_TAKE_BACK_S, _LOOK_AGAIN_S, _SHARED_S = 0.25, 1.0, 0.05


class EndOfPassError(Exception):
    """No further request is given out in this pass; the message says why."""


class Gate:
    """The way to the tiers of one model."""

    def __init__(self, look: Look, *, leave_free: float, max_wait_s: float) -> None:
        self._look, self._leave_free, self._max_wait_s = look, leave_free, max_wait_s
        self._looking, self._seen, self._seen_s = asyncio.Lock(), dict[str, TierLoad](), -_SHARED_S
        self._in_flight: Counter[str] = Counter()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End this pass and all that would follow: what is in flight is withdrawn."""
        self._stop.set()

    async def stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    async def run(self, tier: str, send: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Wait for a slot to spare, and send one request; None: it was withdrawn, because traffic came.

        Raises:
            EndOfPassError: there was no such slot in time, or the pass ends.

        """
        await self._enter(tier)
        self._in_flight[tier] += 1
        try:
            return await self._unless_traffic(tier, asyncio.create_task(send()))
        finally:
            self._in_flight[tier] -= 1

    async def _enter(self, tier: str) -> None:
        end_s = time.monotonic() + self._max_wait_s
        while why := await self._obstacle(tier):
            if time.monotonic() >= end_s:
                raise EndOfPassError(f"busy: {why}")
            await self.stopped_within(min(_LOOK_AGAIN_S, self._max_wait_s))
            self._check_stopped()
        self._check_stopped()

    async def _unless_traffic(self, tier: str, task: asyncio.Task[T]) -> T | None:
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not task.done():
                await asyncio.wait((task, stopping), timeout=_TAKE_BACK_S, return_when=asyncio.FIRST_COMPLETED)
                if not task.done() and (self._stop.is_set() or await self._traffic(tier)):
                    break
            return task.result() if task.done() else None
        finally:
            stopping.cancel()
            task.cancel()  # which withdraws the job; of one that is done, nothing
            await asyncio.wait((task, stopping))

    async def _obstacle(self, tier: str) -> str:
        load = (await self._sample()).get(tier)
        return obstacle(load, self._in_flight[tier], self._leave_free) if load else f"{tier}: all claims pause"

    async def _traffic(self, tier: str) -> str:
        load = (await self._sample()).get(tier)
        return traffic(load) if load else ""

    async def _sample(self) -> dict[str, TierLoad]:
        async with self._looking:
            if time.monotonic() - self._seen_s >= _SHARED_S:
                self._seen, self._seen_s = await self._look(), time.monotonic()
            return self._seen

    def _check_stopped(self) -> None:
        if self._stop.is_set():
            raise EndOfPassError("stopped")
