"""Who may be in the engine together: jobs that were in it when it was lost run in small company, then alone.

One prompt may take an engine down with everything that runs beside it. Nobody knows which one it was, so all of them
come back without a count, as suspects of degree 1, and run in companies of 8: the 64 of a full batch need eight
rounds, and one of these is lost again. Its eight, of degree 2, run alone, and the one that takes the engine down alone
becomes a dead letter. The engine is lost three times, and nobody else pays.
"""

from __future__ import annotations

import asyncio
from collections import deque

from bitladder.script_constants import ALONE_FROM

# How many jobs of degree 1 run together.
COMPANY = 8


class Ward:
    """The endpoint of one engine. While suspects wait at it, nobody else should come."""

    def __init__(self) -> None:
        self._inside = 0
        self._kind = 0  # the suspicion of those inside
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_closed(self) -> bool:
        """Whether suspects wait, or are inside."""
        return bool(self._waiting) or self._kind > 0

    async def enter(self, suspicion: int) -> None:
        """Return when the job may run."""
        if not self._waiting and self._has_room(suspicion):
            self._admitted(suspicion)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((suspicion, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in, and interrupted before it ran
                self.leave()
            raise

    async def entered(self, suspicion: int, limit_s: float | None) -> bool:
        """Return True when the job may run, or False when it may not in that time."""
        if not suspicion and not self.is_closed:
            await self.enter(0)  # at once, without a limit that would cost more than the way in
            return True
        try:
            async with asyncio.timeout(limit_s):
                await self.enter(suspicion)
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """Say that a job that was let in has ended."""
        self._inside -= 1
        if not self._inside:
            self._kind = 0
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            suspicion, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif self._has_room(suspicion):
                self._waiting.popleft()
                self._admitted(suspicion)
                turn.set_result(None)
            else:
                return

    def _admitted(self, suspicion: int) -> None:
        self._inside += 1
        self._kind = suspicion

    def _has_room(self, suspicion: int) -> bool:
        if not self._inside:
            return True
        if suspicion != self._kind or suspicion >= ALONE_FROM:
            return False
        return suspicion == 0 or self._inside < COMPANY
