"""How many jobs a worker may hold: as many as keep the engine's batch full, and no more."""

from __future__ import annotations

from collections import deque

from workers.engines.base import EngineLoad

# Above this the engine begins to preempt what it already runs (vLLM's own recommendation is to stay below 0.9).
_FULL_CACHE = 0.9
# Of the jobs held while the cache is full. Not of the limit: the jobs end in their own time, and a limit that shrank
# with every reading until then would end far too low.
_BACK_OFF = 0.8
# The engine's batch is the most that it ran in so many readings: one reading may fall between two steps.
_READINGS = 8
# Of the batch: jobs that wait in the engine, so that one can start the moment another ends.
_RESERVE = 1 / 8


class Slots:
    """The engine's batch and a small reserve, and a little more whenever the engine starts all jobs at once.

    Jobs should wait in Redis, where any tier can still claim them. A full cache, or a refusal, lowers the limit by a
    factor, as in D. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
    Computer Networks", 1989. But the engine reports how many jobs it runs, so the limit for a full batch is set at once
    instead of searched for.
    """

    def __init__(self, min_slots: int, max_slots: int) -> None:
        self._min, self._max = min(min_slots, max_slots), max_slots
        self._running: deque[int] = deque(maxlen=_READINGS)
        self.limit = max_slots

    def free(self, in_flight: int) -> int:
        return max(0, self.limit - in_flight)

    def resize(self, min_slots: int, max_slots: int) -> None:
        """Follow a changed maximum: more count at once, unless the engine was slowed down; fewer as jobs end."""
        is_full = self.limit == self._max
        self._min, self._max = min(min_slots, max_slots), max_slots
        self.limit = max_slots if is_full else min(self.limit, max_slots)

    def back_off(self) -> None:
        """Halve the limit: the engine refuses some jobs."""
        self.limit = max(self._min, self.limit // 2)

    def adapt(self, load: EngineLoad, in_flight: int) -> None:
        """Follow one reading of the engine's load."""
        self._running.append(load.running)
        batch = max(self._running)
        reserve = max(1, int(batch * _RESERVE))
        if load.cache_used > _FULL_CACHE:
            self.limit = max(self._min, int(in_flight * _BACK_OFF))
        elif load.waiting > reserve:
            self.limit = max(self._min, min(self.limit, batch + reserve))
        elif load.waiting == 0 and in_flight >= self.limit:
            self.limit = min(self._max, self.limit + max(1, self.limit // 8))
