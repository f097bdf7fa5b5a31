"""workers/pump.py: one worker on a real Valkey, its engine in the same process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import redis

from dispatcher.producer import Producer
from dispatcher.sections import Settings
from tests.conftest import make_settings
from workers.engines.echo import EchoEngine
from workers.lease import LeaseKeeper
from workers.pump import Pump

LABELS = {"model": "smollm2", "tier": "int4"}
# A second and a half of work: long enough to be lost and claimed again while it runs.
BODY = {"model": "smollm2", "prompt": "aaaa", "max_tokens": 30}


async def until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  (of another process)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Pump]:
    pump = Pump(settings, "smollm2", "int4", EchoEngine(settings.echo))
    task = asyncio.create_task(pump.run())
    try:
        yield pump
    finally:
        pump.drain()
        await task


async def test_a_job_that_its_worker_loses_and_claims_again_is_run_and_ended_once(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1, echo__tokens_per_s=20)
    other = LeaseKeeper(settings, "smollm2", "int8", "other", held=list, drop=lambda lost, cancelled: None)
    with Producer(settings) as producer:
        async with running(settings) as pump:
            job_id = producer.submit(BODY)
            await until(lambda: store.hexists(f"rq:job:{job_id}", "fence"))
            first = store.hget(f"rq:job:{job_id}", "fence")
            await asyncio.sleep(0.7)  # so that the first execution ends well before the second
            store.zadd("bl:workers", {pump.worker: 1})
            await asyncio.to_thread(other.reap)
            await until(lambda: store.hget(f"rq:job:{job_id}", "fence") != first)
            second = store.hget(f"rq:job:{job_id}", "fence")
            await asyncio.sleep(1)  # the first execution would have ended by now
            held = pump.metrics.registry.get_sample_value("bitladder_worker_in_flight", LABELS)
            await until(lambda: producer.outcome(job_id) is not None)

        outcome = producer.outcome(job_id)

    assert held == 1
    assert outcome
    assert (outcome.state, outcome.attempts) == ("finished", 2)
    assert store.hget(f"rq:job:{job_id}", "fence") == second
    assert store.keys("bl:inflight:*") == []
