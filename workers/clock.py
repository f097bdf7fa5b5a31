"""What the server's clock shows, between two of its answers.

An answer says when the server made it. That was after its question was sent and before it was read. So each answer
bounds how far the server's clock is ahead of ours, and the estimate is moved into those bounds. A process that stood
still before it read an answer learns nothing from that answer, but its own clock has gone on, so it knows how late it
is. Setting the server's clock moves the bounds, and the estimate with them.
"""

from __future__ import annotations

import math
import time


class ServerClock:
    """Follows the server's clock. One thread may observe answers while another asks for times."""

    def __init__(self) -> None:
        self._ahead_s = -math.inf  # of our own monotonic clock

    def observe(self, server_ms: int, asked_s: float) -> None:
        """Note the time in an answer to a question that was sent at `asked_s` of time.monotonic()."""
        min_s, max_s = server_ms / 1000 - time.monotonic(), (server_ms + 1) / 1000 - asked_s
        self._ahead_s = min(max(self._ahead_s, min_s), max_s)

    def now_ms(self) -> int:
        """Return what the server's clock shows; 0 where it has not answered yet."""
        ahead_s = self._ahead_s
        return 0 if math.isinf(ahead_s) else int((time.monotonic() + ahead_s) * 1000)

    def seconds_until(self, server_ms: int | None) -> float | None:
        """Return the seconds until that time, negative when it has passed; None where there is no such time."""
        return None if server_ms is None else server_ms / 1000 - self._ahead_s - time.monotonic()
