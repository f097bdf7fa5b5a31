"""redis-py's pools, made to shrink: what a burst has opened is closed when it has been idle for a while.

Connections are handed out again latest first, so those that are needed no more collect at the other end of the list.
"""

from __future__ import annotations

import time
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool

# What was not used for so long is closed, at the next use of another one.
IDLE_S = 30.0
# Closing takes a moment of whoever gives a connection back.
MAX_AT_ONCE = 4


class _Shrinking(ConnectionPool):
    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  (redis-py's signature)
        super().__init__(*args, **options)
        self._used_s: dict[AbstractConnection, float] = {}

    async def release(self, connection: AbstractConnection) -> None:
        now = self._used_s[connection] = time.monotonic()
        await super().release(connection)
        for _ in range(MAX_AT_ONCE):
            if not self._available_connections or now - self._used_s[self._available_connections[0]] < IDLE_S:
                break
            idle = self._available_connections.pop(0)
            del self._used_s[idle]
            await idle.disconnect(nowait=True)


class Pool(_Shrinking):
    """Of connections to the server at a URL."""


class SentinelPool(_Shrinking, SentinelConnectionPool):
    """Of connections to the primary that the sentinels name."""
