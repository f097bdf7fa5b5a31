"""Say in Redis which jobs of a worker its engine has begun: the loss of the worker costs the others no attempt."""

from __future__ import annotations

from collections.abc import Sequence

import redis.asyncio
from redis.exceptions import RedisError

from bitladder.queue.server.protocol import unreachable


async def mark_begun(client: redis.asyncio.Redis, worker: str, ids: Sequence[str], *, has_begun: bool = True) -> None:
    """Note that the engine has begun these jobs of a worker, or has refused them without having begun."""
    try:
        if ids:
            command = "SREM" if has_begun else "SADD"
            await client.execute_command(command, f"bl:unbegun:{worker}", *ids)  # type: ignore[no-untyped-call]  # redis-py
    except (RedisError, OSError) as error:
        raise unreachable("Redis does not answer", error) from error
