"""How many jobs tenants have that have not ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from bitladder.ids import id_bytes
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.protocol import unreachable


async def unended_jobs(queue: JobQueue, tenants: Sequence[str], now_ms: int) -> list[int]:
    """Return how many jobs of each named tenant wait or run; of the default tenant nothing is counted.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    if not tenants:
        return []
    try:
        async with queue.client.pipeline(transaction=False) as pipe:
            for tenant in tenants:
                pipe.zcount(b"bl:tenant:" + id_bytes(tenant), now_ms, "+inf")
            answers: list[Any] = await pipe.execute(raise_on_error=False)
    except (RedisError, OSError) as error:
        raise unreachable("cannot count the jobs of tenants", error) from error
    return [answer if isinstance(answer, int) else 0 for answer in answers]
