"""How many jobs a worker may hold: as many as keep the engine's batch full, and no more."""

from __future__ import annotations

from collections import deque

from workers.engines.base import EngineLoad

# Above this the engine begins to preempt what it already runs (vLLM's own recommendation is to stay below 0.9).
FULL_CACHE = 0.9
# Of the jobs held while the cache is full. Of those held, not of the limit: they end in their own time, and a limit
# that shrank at every look until then would end far too low.
BACK_OFF = 0.8
# The engine's batch is what it ran at most in so many readings: one reading may fall between two steps.
READINGS = 8
# Of the batch: jobs that wait in the engine, so that one is there the moment another ends.
RESERVE = 1 / 8


class Slots:
    """The engine's batch and a small reserve behind it; a little more whenever the engine starts everything at once.

    Waiting belongs into Redis, where any tier can still take the job. A full cache, or a refusal, lowers the limit by a
    factor, as in D. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
    Computer Networks", 1989; but what the engine runs is known, so a batch that is full is met at once instead of
    searched for.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = min(least, most), most
        self._running: deque[int] = deque(maxlen=READINGS)
        self.limit = most

    def free(self, in_flight: int) -> int:
        return max(0, self.limit - in_flight)

    def back_off(self) -> None:
        """Hold half as many jobs: the engine refuses some of them."""
        self.limit = max(self._least, self.limit // 2)

    def adapt(self, load: EngineLoad, in_flight: int) -> None:
        """Follow one reading of the engine's load."""
        self._running.append(load.running)
        batch = max(self._running)
        reserve = max(1, int(batch * RESERVE))
        if load.cache_used > FULL_CACHE:
            self.limit = max(self._least, int(in_flight * BACK_OFF))
        elif load.waiting > reserve:
            self.limit = max(self._least, min(self.limit, batch + reserve))
        elif load.waiting == 0 and in_flight >= self.limit:
            self.limit = min(self._most, self.limit + max(1, self.limit // 8))
