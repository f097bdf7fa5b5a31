"""Isolation of jobs that were in an engine when it crashed: they run in groups of 8, then alone.

One prompt may crash the engine, and with it every request beside it. Which one it was is not known. So all of them are
requeued, with no attempt counted and a crash count of 1, and run in groups of 8. A full batch of 64 makes eight groups;
one of them crashes the engine again. The jobs of that group have a crash count of 2 and run alone. The job that crashes
the engine alone becomes a dead letter. In all the engine crashes three times, and no other job is charged.
"""

from __future__ import annotations

import asyncio
from collections import deque

from bitladder.script_constants import ALONE_FROM

# How many jobs with a crash count of 1 run together.
GROUP_SIZE = 8


class Isolation:
    """Admits jobs to one engine, in their order. All jobs in the engine at a time have the same crash count."""

    def __init__(self) -> None:
        self._in_engine = 0
        self._crash_count = 0  # of the jobs in the engine
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_active(self) -> bool:
        """Whether isolated jobs run, or any jobs wait here. Meanwhile the worker should claim no others."""
        return bool(self._waiting) or self._crash_count > 0

    async def enter(self, crash_count: int) -> None:
        """Return when the job may run. The caller calls leave() when it has ended."""
        if not self._waiting and self._has_room(crash_count):
            self._admit(crash_count)
            return
        admission = asyncio.get_running_loop().create_future()
        self._waiting.append((crash_count, admission))
        try:
            await admission
        except asyncio.CancelledError:
            if admission.done() and not admission.cancelled():  # admitted, and cancelled before it ran
                self.leave()
            raise

    async def enter_within(self, crash_count: int, limit_s: float | None) -> bool:
        """Return True when the job may run, or False when that time has passed."""
        if not crash_count and not self.is_active:
            await self.enter(0)  # at once: a timeout would cost more than the admission
            return True
        try:
            async with asyncio.timeout(limit_s):
                await self.enter(crash_count)
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """Note that an admitted job has ended."""
        self._in_engine -= 1
        if not self._in_engine:
            self._crash_count = 0
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._waiting:
            crash_count, admission = self._waiting[0]
            if admission.cancelled():
                self._waiting.popleft()
            elif self._has_room(crash_count):
                self._waiting.popleft()
                self._admit(crash_count)
                admission.set_result(None)
            else:
                return

    def _admit(self, crash_count: int) -> None:
        self._in_engine += 1
        self._crash_count = crash_count

    def _has_room(self, crash_count: int) -> bool:
        if not self._in_engine:
            return True
        if crash_count != self._crash_count or crash_count >= ALONE_FROM:
            return False
        return crash_count == 0 or self._in_engine < GROUP_SIZE
