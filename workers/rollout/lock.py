"""Whose turn it is to change its checkpoint: one worker of a model at a time, so that the others serve meanwhile."""

from __future__ import annotations

import structlog
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from bitladder.queue.server.connection import connect
from bitladder.settings.redis_section import RedisSettings

log = structlog.get_logger()
# Longer than any pause of a living worker's loop; a worker that was killed holds the others up for so long.
TURN_S = 30.0


class Turn:
    """One worker's claim to the turn. Nothing here raises: without Redis nobody has the turn."""

    def __init__(self, settings: RedisSettings, model: str) -> None:
        self._client = connect(settings)
        self._lock: Lock = self._client.lock(f"bl:rollout:{model}", timeout=TURN_S, thread_local=False)
        self.is_held = False

    async def take(self) -> bool:
        """Return whether it is this worker's turn, now or already."""
        if not self.is_held:
            try:
                self.is_held = bool(await self._lock.acquire(blocking=False))
            except (RedisError, OSError) as error:
                log.warning("no turn to change the checkpoint", error=str(error))
        return self.is_held

    async def keep(self) -> None:
        """Hold it for another while; what was lost, because Redis was away, is lost."""
        try:
            await self._lock.extend(TURN_S, replace_ttl=True)
        except LockError:
            self.is_held = False
        except (RedisError, OSError) as error:
            log.warning("turn not renewed", error=str(error))

    async def leave(self) -> None:
        """Let the next one."""
        if not self.is_held:
            return
        self.is_held = False
        try:
            await self._lock.release()
        except (RedisError, OSError) as error:  # LockError is one: it is somebody else's by now
            log.warning("turn not given back, it ends by itself", error=str(error))

    async def close(self) -> None:
        await self.leave()
        await self._client.aclose()
