"""What an operator's move of a waiting job says of it: where it may go, and where it came from."""

from __future__ import annotations

from typing import Any

import msgspec
from redis.exceptions import RedisError

from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.kinds import Timestamp
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.untrusted import MAX_QUEUE_CHARS, read_number, short
from bitladder.queue_name import QueueName


class Move(msgspec.Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """The last move of a job by an operator."""

    at: Timestamp
    source: str  # a queue


def queue_above(name: QueueName, target: str, ladder: tuple[str, ...]) -> str | None:
    """Return the queue of a higher tier to which a job may be moved; None: it is there, or may not be served there."""
    if name.tier not in ladder or name.ceiling not in (None, *ladder):
        return None  # of another configuration: which tiers are higher, and may serve it, is not known here
    above = tuple(tier for tier in name.serving(ladder) if ladder.index(tier) >= ladder.index(target))
    if target not in above or ladder.index(target) <= ladder.index(name.tier):
        return None
    return str(QueueName.of(name.model, target, name.lane, above, ladder))


async def read_move(queue: JobQueue, job_id: str) -> Move | None:
    """Return how a job was moved last; None: it was not.

    Raises:
        QueueUnreachableError: Redis is unreachable.

    """
    try:
        raw: Any = await queue.client.hget(f"rq:job:{job_id}", "moved")
    except (RedisError, OSError) as error:
        raise unreachable("cannot read from Redis", error) from error
    at, _, source = (raw or b"").partition(b" ")
    at_ms = read_number(at)
    return Move(at=at_ms / 1000, source=short(source.decode(errors="replace"), MAX_QUEUE_CHARS)) if at_ms else None
