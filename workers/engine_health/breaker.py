"""The circuit breaker of an engine that keeps failing. Pure: the caller says what time it is.

A failure is a start that failed, a restart because of faults, or a crash or hang before the engine had served anything,
unless an isolated job explains it. States:

- closed: the engine serves. MAX_FAILURES failures within WINDOW_S open the breaker.
- open: the worker claims nothing, so that jobs of its tier overflow to the next one, and waits.
- half-open: the wait is over, and the worker sends one request of its own. An answer closes the breaker.

The failures of the window are remembered either way: the next one opens the breaker at once, for twice as long.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

# Three starts of a large engine take minutes: a fourth would not help where three did not.
MAX_FAILURES = 3
# After so long without a failure an engine starts with none.
WINDOW_S = 600.0
# The first wait is short, because an operator who repairs the engine waits too. The longest wait bounds how late a
# repair is noticed.
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 60.0


class BreakerState(StrEnum):
    """Whether an engine gets jobs."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Breaker:
    """Counts the failures of one engine."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque()
        self._times_opened = 0
        self._open_until: float | None = None  # None: closed

    def state(self, now: float) -> BreakerState:
        """Return the state at that time."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def failed(self, now: float) -> float:
        """Note a failure; return for how many seconds the breaker is open now, 0 when it stays closed."""
        while self._failures and self._failures[0] < now - WINDOW_S:
            self._failures.popleft()
        if not self._failures:
            self._times_opened = 0
        self._failures.append(now)
        if self._open_until is None and len(self._failures) < MAX_FAILURES:
            return 0.0
        pause: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._times_opened, 10))
        self._times_opened += 1
        self._open_until = now + pause
        return pause

    def passed(self) -> None:
        """Note that the engine answered the request of the half-open state."""
        self._open_until = None
