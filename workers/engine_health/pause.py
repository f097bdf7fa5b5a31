"""For how long a busy engine is sent nothing: as long as it says, once for all jobs of the worker. Pure: told the time.

An engine that does not say is given a pause only when it has answered nothing since it was last busy: one request that
it always refuses must not keep the others waiting.
"""

from __future__ import annotations

import math

# An upstream's limit may last for an hour or a day. This bounds how late its end is noticed.
MAX_S = 60.0
# Where the engine does not say: the first pause, which doubles each time up to the second number.
_FIRST_UNASKED_S = 0.2
MAX_UNASKED_S = 2.0


class Pause:
    """The pause of one engine."""

    def __init__(self) -> None:
        self.reason = ""
        self._until_s = -math.inf
        self._until_by_engine_s = -math.inf  # as far as the engine itself asked for it
        self._busy_s = -math.inf  # when the engine was last busy
        self._unasked = 0  # times the engine was busy and did not say for how long, with no answer in between

    def left_s(self, now: float) -> float:
        """Return how much of the pause is left."""
        return max(0.0, self._until_s - now)

    def is_by_engine(self, now: float) -> bool:
        """Return whether the engine itself said that it should be sent nothing now."""
        return now < self._until_by_engine_s

    def busy(self, now: float, sent_s: float, asked_for_s: float | None, reason: str) -> float:
        """Note that the engine refused a request; return the length of the pause that begins, 0 where one is on.

        `asked_for_s` is what the engine said, `sent_s` when the request was sent.
        """
        is_known = sent_s < self._busy_s  # sent before the engine had refused the last one
        if not asked_for_s:  # some engines say 0, and mean no more than those that say nothing
            self._unasked += not is_known
            wait_s = min(MAX_UNASKED_S, _FIRST_UNASKED_S * 2.0 ** (self._unasked - 2)) if self._unasked > 1 else 0.0
        else:
            wait_s = min(MAX_S, asked_for_s)
            self._until_by_engine_s = max(self._until_by_engine_s, now + wait_s)
        was_paused = now < self._until_s
        self._busy_s, self._until_s, self.reason = now, max(self._until_s, now + wait_s), reason
        return 0.0 if was_paused else self.left_s(now)

    def answered(self, sent_s: float) -> None:
        """Note that the engine took a request, whatever came of it."""
        if sent_s > self._busy_s:
            self._unasked = 0
