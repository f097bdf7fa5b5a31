"""The rollout lock: one worker of a model at a time changes its checkpoint, so that the others serve meanwhile."""

from __future__ import annotations

import structlog
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from bitladder.queue.server.connection import connect
from bitladder.queue.server.outage import OUTAGE
from bitladder.settings.redis_section import RedisSettings

log = structlog.get_logger()
# Longer than any pause of a living worker's event loop. A worker that was killed holds the others up for so long.
LOCK_S = 30.0


class RolloutLock:
    """One worker's hold on the lock. No method raises: while Redis is unreachable no worker gets the lock."""

    def __init__(self, settings: RedisSettings, model: str) -> None:
        self._client = connect(settings)
        self._lock: Lock = self._client.lock(f"bl:rollout:{model}", timeout=LOCK_S, thread_local=False)
        self.is_held = False

    async def acquire(self) -> bool:
        """Return whether this worker holds the lock, since now or already."""
        if not self.is_held:
            try:
                self.is_held = bool(await self._lock.acquire(blocking=False))
            except (RedisError, OSError) as error:
                OUTAGE.warn("rollout lock not acquired", error=str(error))
        return self.is_held

    async def renew(self) -> None:
        """Hold the lock for another LOCK_S, unless it has run out while Redis was unreachable."""
        try:
            await self._lock.extend(LOCK_S, replace_ttl=True)
        except LockError:
            self.is_held = False
        except (RedisError, OSError) as error:
            OUTAGE.warn("rollout lock not renewed", error=str(error))

    async def release(self) -> None:
        """Release the lock for the next worker."""
        if not self.is_held:
            return
        self.is_held = False
        try:
            await self._lock.release()
        except (RedisError, OSError) as error:  # LockError is one: another worker holds it by now
            OUTAGE.warn("rollout lock not released, it ends by itself", error=str(error))

    async def close(self) -> None:
        await self.release()
        await self._client.aclose()
