"""The server's clock, as its answers have shown it: a command carries the time until when it may be carried out.

workers/clock.py estimates the same clock from both sides. Here the earliest time counts: with a limit that is too early
a call is refused and sent again; with one that is too late it would run after its client was told that it did not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

# Two clocks run apart by some ten parts in a million; after this long it is asked again.
STALE_S = 60.0
ASK = ("TIME",)


class EarliestServerTime:
    """Says what time it is on the server at least: what it has heard was on its way for a moment."""

    def __init__(self) -> None:
        self._ms, self._heard_s = 0, float("-inf")

    @property
    def is_stale(self) -> bool:
        """Whether it has not been heard for a while, or ever."""
        return time.monotonic() - self._heard_s > STALE_S

    def heard(self, ms: int) -> None:
        """Take what the server has just said."""
        self._ms, self._heard_s = ms, time.monotonic()

    def read(self, answer: Sequence[bytes | int]) -> None:
        """Take the answer to ASK."""
        seconds, microseconds = answer
        self.heard(int(seconds) * 1000 + int(microseconds) // 1000)

    def after(self, seconds: float) -> int:
        """Return what the clock shows so many seconds from now, in milliseconds since 1970."""
        return self._ms + int((time.monotonic() - self._heard_s + seconds) * 1000)
