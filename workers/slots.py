"""How many jobs a worker may hold: as many as keep the engine's batch full, and no more."""

from __future__ import annotations

from workers.engines.base import Load

# Above this the engine begins to preempt what it already runs (vLLM's own recommendation is to stay below 0.9).
FULL_CACHE = 0.9


class Slots:
    """Additive increase while the engine starts everything at once, multiplicative decrease while it lets jobs wait.

    Waiting belongs into Redis, where any tier can still take the job. D. Chiu and R. Jain, "Analysis of the Increase
    and Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = min(least, most), most
        self.limit = most

    def free(self, in_flight: int) -> int:
        return max(0, self.limit - in_flight)

    def adapt(self, load: Load, in_flight: int) -> None:
        """Follow one reading of the engine's load."""
        if load.waiting > 0 or load.cache_used > FULL_CACHE:
            self.limit = max(self._least, int(min(self.limit, in_flight) * 0.8))
        elif in_flight >= self.limit:
            self.limit = min(self._most, self.limit + max(1, self.limit // 8))
