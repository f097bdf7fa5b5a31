"""What time it is on the server, for whoever must know between two of its answers.

A server's answer says when it was made. That was after its question was sent and before it was read, so each answer
bounds how far the server's clock is ahead of ours, and the estimate is moved into those bounds. A process that stood
still before it read an answer learns nothing from that one, and its own clock has gone on: it knows how late it is. A
server's clock that was set moves the bounds, and the estimate with them.
"""

from __future__ import annotations

import math
import time


class ServerClock:
    """Follows the server's clock. One thread may tell it answers while another asks it."""

    def __init__(self) -> None:
        self._ahead_s = -math.inf  # of our own monotonic clock

    def heard(self, server_ms: int, asked_s: float) -> None:
        """Note the time in an answer to what was asked at `asked_s` of time.monotonic()."""
        least, most = server_ms / 1000 - time.monotonic(), (server_ms + 1) / 1000 - asked_s
        self._ahead_s = min(max(self._ahead_s, least), most)

    def seconds_until(self, server_ms: int | None) -> float | None:
        """Return how long it is until then, less than 0 when it is over; None where there is no such time."""
        return None if server_ms is None else server_ms / 1000 - self._ahead_s - time.monotonic()
