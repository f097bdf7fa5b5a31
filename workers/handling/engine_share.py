"""How much of its engine's time each job has used: at every moment, the executions that are open share it evenly.

One running sum does it: the integral of 1 / open executions over time. What it has grown by, between the begin and the
end of an execution, is that execution's share. So the shares of all executions add up to the time in which at least one
was open, and neither a begin nor an end looks at the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class EngineTime:
    """The time of one engine."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._open = 0
        self._sum_s, self._last_s = 0.0, clock()

    def begin(self) -> Execution:
        """Note that the engine begins one more job."""
        at_s, sum_s = self._advance()
        self._open += 1
        return Execution(self, at_s, sum_s)

    def _advance(self) -> tuple[float, float]:
        now_s = self._clock()
        if self._open:
            self._sum_s += (now_s - self._last_s) / self._open
        self._last_s = now_s
        return now_s, self._sum_s

    def end(self) -> tuple[float, float]:
        """Note that an execution has ended; return when, and the sum."""
        ended = self._advance()
        self._open -= 1
        return ended


class Execution:
    """One job in the engine."""

    __slots__ = ("_begin_s", "_begin_sum_s", "_engine", "run_s", "share_s")

    def __init__(self, engine: EngineTime, begin_s: float, begin_sum_s: float) -> None:
        self._engine: EngineTime | None = engine
        self._begin_s, self._begin_sum_s = begin_s, begin_sum_s
        self.run_s = self.share_s = 0.0  # in the engine, and the part of that which was its share

    def end(self) -> None:
        """Note that the engine has ended it; a second call changes nothing."""
        if self._engine is None:
            return
        at_s, sum_s = self._engine.end()
        self.run_s, self.share_s = at_s - self._begin_s, sum_s - self._begin_sum_s
        self._engine = None
