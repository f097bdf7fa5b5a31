"""workers/engine_health/tier_health.py: real workers on a real Valkey, one tier of which breaks jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import redis
from structlog.testing import capture_logs

from bitladder.contract import Outcome
from bitladder.producer import Producer
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.queue_list import read_queues
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from tests.workers.test_pump import until
from workers.engines.echo import EchoEngine
from workers.pump import Pump

BODY = {"model": "smollm2", "prompt": "a", "max_tokens": 1}
HEADERS = {"x-min-tier": "int4"}


@contextlib.asynccontextmanager
async def running(settings: Settings, *tiers: str) -> AsyncIterator[None]:
    pumps = [Pump(settings, "smollm2", tier, EchoEngine(settings.echo, tier)) for tier in tiers]
    tasks = [asyncio.create_task(pump.run()) for pump in pumps]
    await until(lambda: all(pump.leases.is_ready for pump in pumps))
    try:
        yield
    finally:
        for pump in pumps:
            pump.drain()
        await asyncio.gather(*tasks)


async def served(producer: Producer, count: int, **headers: str) -> list[Outcome]:
    ids = [producer.submit(BODY, headers=HEADERS | headers) for _ in range(count)]
    outcomes = await asyncio.to_thread(producer.gather, ids)
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)]


def went_up_at_once(outcome: Outcome) -> bool:
    return outcome.overflowed_from == "int4" and outcome.attempts == 1


async def is_shifted(settings: Settings) -> bool:
    queue = JobQueue(connect(settings.redis), settings)
    [model] = (await read_queues(queue)).data
    await queue.aclose()
    return next(tier.shifted for tier in model.tiers if tier.tier == "int4")


async def test_a_tier_that_breaks_jobs_gives_them_away_and_gets_them_back_by_probes(
    redis_url: str, store: redis.Redis
) -> None:
    # An engine that breaks so much would be started again and again; this is about what its tier does.
    good = make_settings(redis_url, queue__shift_hold_s=1, queue__probe_interval_s=0.1, worker__fault_ratio=1)
    bad = make_settings(
        redis_url,
        queue__shift_hold_s=1,
        queue__probe_interval_s=0.1,
        worker__fault_ratio=1,
        echo__fault_ratio=0.7,
    )
    with capture_logs() as logs, Producer(good) as producer:
        async with running(good, "int8"):
            async with running(bad, "int4", "int4"):
                assert len(await served(producer, 60)) == 60
                async with asyncio.timeout(20):
                    while not await is_shifted(good):
                        await served(producer, 1)
                    shifted = await served(producer, 20)
                    while sum(map(went_up_at_once, shifted)) < 15:  # the others are probes, once all workers know
                        shifted = await served(producer, 20)
                bound = await served(producer, 5, **{"x-max-tier": "int4"})
            async with running(good, "int4"), asyncio.timeout(30):
                while await is_shifted(good):
                    await served(producer, 1)
                back = await served(producer, 20)

    assert {outcome.state for outcome in shifted} == {"finished"}
    assert {outcome.tier for outcome in bound} == {"int4"}
    assert {outcome.tier for outcome in back} == {"int4"}
    events = [(line["event"], line.get("to")) for line in logs if line["event"].startswith("traffic")]
    assert events == [("traffic shifted", "int8"), ("traffic came back", None)]
