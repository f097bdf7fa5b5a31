"""What a response's record says beside what every reader of jobs reads of it."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.protocol import unreachable


async def is_genuine(queue: JobQueue, job_id: str) -> bool:
    """Return whether the request in a record was signed by one of us; without secrets it always is."""
    if not queue.settings.queue.secrets:
        return True
    data, mac = await _read(queue, job_id, "data", "mac")
    return queue.signer.is_genuine(job_id, data or b"", mac or b"")


async def has_restarted(queue: JobQueue, job_id: str) -> bool:
    """Return whether an execution came to nothing, and the stream may have begun anew."""
    (history,) = await _read(queue, job_id, "history")
    return history is not None


async def _read(queue: JobQueue, job_id: str, *names: str) -> list[Any]:
    try:
        return await queue.client.hmget(f"rq:job:{job_id}", list(names))
    except (RedisError, OSError) as error:
        raise unreachable("cannot read from Redis", error) from error
