"""redis-py's connection pools, made to shrink: connections that a burst has opened are closed after an idle time.

The connection that was used last is used again first, so idle ones collect at the other end of the list.
"""

from __future__ import annotations

import time
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool

# A connection that is idle for so long is closed at the next release of another one.
IDLE_S = 30.0
# Closing takes time of the caller that releases a connection.
_MAX_CLOSED_AT_ONCE = 4


class _Shrinking(ConnectionPool):
    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  (redis-py's signature)
        super().__init__(*args, **options)
        self._used_s: dict[AbstractConnection, float] = {}

    async def release(self, connection: AbstractConnection) -> None:
        now = self._used_s[connection] = time.monotonic()
        await super().release(connection)
        for _ in range(_MAX_CLOSED_AT_ONCE):
            if not self._available_connections or now - self._used_s[self._available_connections[0]] < IDLE_S:
                break
            idle = self._available_connections.pop(0)
            del self._used_s[idle]
            await idle.disconnect(nowait=True)


class Pool(_Shrinking):
    """A pool of connections to the server at a URL."""


class SentinelPool(_Shrinking, SentinelConnectionPool):
    """A pool of connections to the primary that the Sentinels name."""
