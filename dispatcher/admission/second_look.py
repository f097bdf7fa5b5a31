"""What a refusal is held against in Redis before it is given: the first job of a key, and a tenant's own turns.

Admission decides by a sample of whole lanes, without a round trip. Only who would be refused pays for these.
"""

from __future__ import annotations

import asyncio
import contextlib

import redis.asyncio
from redis.exceptions import RedisError

from bitladder.contract import Submission
from bitladder.ids import in_key
from bitladder.queue_name import QueueName, list_of
from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.forecast import RANK, Forecast, excess_s, wait_at
from bitladder.routing.rates import Load
from bitladder.script_constants import JOBS_PER_TURN

# Whoever is overloaded is to answer soon: without an answer the refusal stands.
_TIMEOUT_S = 0.5


async def is_repeat(client: redis.asyncio.Redis, job: Submission) -> bool:
    """Return whether a job with the same idempotency key was accepted before."""
    name = f"bl:idem:{in_key(job.model)}:{job.idempotency_key}"
    with contextlib.suppress(RedisError, OSError):
        return bool(job.idempotency_key and await client.exists(name))
    return False


async def is_in_time_by_turns(
    client: redis.asyncio.Redis, job: Submission, load: Load, entering: int, latency_budget: LatencyBudget
) -> bool:
    """Return whether a tenant that has little waiting is served in time, however much others have in its lane.

    `entering`: jobs on their way to Redis, which may be the tenant's own.
    """
    before = await _jobs_before(client, job, entering)
    wait_s = None if before is None else wait_at(load, RANK[QueueName.parse(job.queue).lane], before)
    if before is None or load.rate is None or wait_s is None:
        return False
    expected = Forecast(ahead=before, rate=load.rate, wait_s=wait_s, answer_s=wait_s + load.residence_s)
    return excess_s(expected, latency_budget) <= 0


async def _jobs_before(client: redis.asyncio.Redis, job: Submission, entering: int) -> int | None:
    """Return how many jobs of its lane are served before a new one of this tenant; None: nobody shares the lane.

    Tenants are taken to weigh alike, and each of the others to begin a turn first (scripts/claiming/fairness.lua).
    """
    waits_in = list_of(job.queue, job.request.tenant)
    try:
        async with asyncio.timeout(_TIMEOUT_S), client.pipeline(transaction=False) as pipe:
            pipe.llen(f"rq:queue:{waits_in}")
            pipe.hget(f"bl:counts:{waits_in}", "gone")
            pipe.zcard(f"bl:shares:{job.queue}")
            pipe.exists(f"rq:queue:{job.queue}")
            length, gone, named, default = await pipe.execute()
        waiting = max(0, int(length) - int(gone or 0)) + entering
    except (RedisError, OSError, TimeoutError, ValueError):
        return None
    others = int(named) + int(default) - (1 if length else 0)
    return waiting * (others + 1) + others * JOBS_PER_TURN if others > 0 else None
