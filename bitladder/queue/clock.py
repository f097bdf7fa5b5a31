"""The server's clock, as far as its answers have shown it: for commands that must not be carried out too late."""

from __future__ import annotations

import time
from collections.abc import Sequence

# Two clocks run apart by some ten parts in a million; after this long it is asked again.
STALE_S = 60.0
ASK = ("TIME",)


class ServerClock:
    """Says what time it is there at least: what it has read was on its way for a moment."""

    def __init__(self) -> None:
        self._ms, self._read_s = 0, float("-inf")

    @property
    def is_stale(self) -> bool:
        """Whether it has not been read for a while, or ever."""
        return time.monotonic() - self._read_s > STALE_S

    def saw(self, ms: int) -> None:
        """Take what the server has just said."""
        self._ms, self._read_s = ms, time.monotonic()

    def read(self, answer: Sequence[bytes | int]) -> None:
        """Take the answer to ASK."""
        seconds, microseconds = answer
        self.saw(int(seconds) * 1000 + int(microseconds) // 1000)

    def after(self, seconds: float) -> int:
        """Return what the clock will show so many seconds from now, in milliseconds since 1970."""
        return self._ms + int((time.monotonic() - self._read_s + seconds) * 1000)
