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

    __slots__ = ("_clock", "last_s", "running", "sum_s")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.running = 0  # executions
        self.sum_s, self.last_s = 0.0, clock()

    def begin(self) -> Execution:
        """Note that the engine begins one more job."""
        self.advance()
        self.running += 1
        return Execution(self)

    def advance(self) -> None:
        """Bring the sum up to now."""
        now_s = self._clock()
        if self.running:
            self.sum_s += (now_s - self.last_s) / self.running
        self.last_s = now_s


class Execution:
    """One job in the engine."""

    __slots__ = ("_begin_s", "_begin_sum_s", "_engine", "run_s", "share_s")

    def __init__(self, engine: EngineTime) -> None:
        self._engine: EngineTime | None = engine
        self._begin_s, self._begin_sum_s = engine.last_s, engine.sum_s
        self.run_s = self.share_s = 0.0  # in the engine, and the part of that which was its share

    def end(self) -> None:
        """Note that the engine has ended it; a second call changes nothing."""
        if (engine := self._engine) is not None:
            engine.advance()
            engine.running -= 1
            self.run_s, self.share_s = engine.last_s - self._begin_s, engine.sum_s - self._begin_sum_s
            self._engine = None
