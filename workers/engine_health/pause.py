"""For how long a busy engine is left alone: as long as it says, once for all jobs of the worker. Pure: told the time.

An engine that does not say is left alone only when nobody was answered since it was last busy: one request that is
always refused must not keep the others waiting.
"""

from __future__ import annotations

import math

# An upstream's limit may be an hour's or a day's: how late its end is noticed has a bound.
MAX_S = 60.0
# Where the engine does not say: at first so long, twice as long each time, up to a bound.
UNTOLD_S = 0.2
MAX_UNTOLD_S = 2.0


class Pause:
    """One engine's."""

    def __init__(self) -> None:
        self.reason = ""
        self._until_s = self._told_s = -math.inf  # when it ends; when it would end by the engine's own word
        self._busy_s = -math.inf  # when the engine was last busy
        self._untold = 0  # times the engine was busy, with no answer in between

    def left_s(self, now: float) -> float:
        """Return how much of it is left."""
        return max(0.0, self._until_s - now)

    def is_told(self, now: float) -> bool:
        """Return whether the engine itself said that nothing should be asked now."""
        return now < self._told_s

    def busy(self, now: float, asked_s: float, told_s: float | None, reason: str) -> float:
        """Note that a request was refused; return for how long nothing should be asked, 0 where that is known.

        `told_s` is what the engine said, `asked_s` when the request was sent.
        """
        is_known = asked_s < self._busy_s  # sent before the engine had said anything
        if not told_s:  # some say 0, and mean it as little as those that say nothing
            self._untold += not is_known
            wait_s = min(MAX_UNTOLD_S, UNTOLD_S * 2.0 ** (self._untold - 2)) if self._untold > 1 else 0.0
        else:
            wait_s = min(MAX_S, told_s)
            self._told_s = max(self._told_s, now + wait_s)
        was_paused = now < self._until_s
        self._busy_s, self._until_s, self.reason = now, max(self._until_s, now + wait_s), reason
        return 0.0 if was_paused else self.left_s(now)

    def answered(self, asked_s: float) -> None:
        """Note that a request was taken, whatever came of it."""
        if asked_s > self._busy_s:
            self._untold = 0
