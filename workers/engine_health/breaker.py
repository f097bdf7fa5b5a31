"""When to stop trying an engine that keeps failing. Pure: the caller says what time it is.

A failure is a start that failed, a restart because of faults, and a loss or a hang before anything was served, unless
a suspect answers for it. Closed: the engine serves. MAX_FAILURES within WINDOW_S open it: the worker claims nothing,
so that its tier's queue drains upward, and waits. Half-open: the wait is over, and one request of the worker's own is
tried. Whether it passes or not, the failures of the window are remembered: the next one opens the breaker at once, for
twice as long.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

# Three restarts of a large engine take minutes: a fourth would not help where three did not.
MAX_FAILURES = 3
# An engine that served for so long since it last failed starts with a clean slate.
WINDOW_S = 600.0
# The first wait is short, since whoever repaired the engine waits too; the longest bounds how late a repair is noticed.
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 60.0


class BreakerState(StrEnum):
    """Whether an engine is trusted with jobs."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Breaker:
    """Counts the failures of one engine."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque()
        self._times_opened = 0
        self._until: float | None = None  # None: closed

    def state(self, now: float) -> BreakerState:
        """Return the state at that time."""
        if self._until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._until else BreakerState.HALF_OPEN

    def failed(self, now: float) -> float:
        """Note a failure; return for how many seconds the breaker is open now, 0 when it stays closed."""
        while self._failures and self._failures[0] < now - WINDOW_S:
            self._failures.popleft()
        if not self._failures:
            self._times_opened = 0
        self._failures.append(now)
        if self._until is None and len(self._failures) < MAX_FAILURES:
            return 0.0
        pause: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._times_opened, 10))
        self._times_opened += 1
        self._until = now + pause
        return pause

    def passed(self) -> None:
        """Note that the request of the half-open state was answered."""
        self._until = None
