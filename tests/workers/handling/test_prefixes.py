"""queue.prefix_bytes: jobs whose prompts begin alike go to the worker that served one, on a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import redis

from bitladder.producer import Producer
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from tests.workers.test_pump import until
from workers.engines.echo import EchoEngine
from workers.pump import Pump

START = "The same beginning of many prompts, "


def body(start: str, rest: str, **fields: str) -> dict[str, object]:
    return {"model": "smollm2", "prompt": start + rest, "max_tokens": 1} | fields


@contextlib.asynccontextmanager
async def running(settings: Settings, count: int) -> AsyncIterator[list[Pump]]:
    pumps = [Pump(settings, "smollm2", "int4", EchoEngine(settings.echo)) for _ in range(count)]
    tasks = [asyncio.create_task(pump.run()) for pump in pumps]
    await until(lambda: all(pump.leases.is_ready for pump in pumps))
    try:
        yield pumps
    finally:
        for pump in pumps:
            pump.drain()
        await asyncio.gather(*tasks)


async def workers_of(
    producer: Producer, store: redis.Redis, bodies: list[dict[str, object]], waiting: int = 1
) -> list[str]:
    """Return which worker served each job, one job after the other, each once so many workers wait."""
    served = []
    for item in bodies:
        await until(lambda: store.info("clients")["blocked_clients"] >= waiting)
        job_id = producer.submit(item, headers={"x-max-tier": "int4"})
        await asyncio.to_thread(producer.wait, job_id, timeout_s=20)
        served.append(str(store.hget(f"rq:job:{job_id}", "worker_name")))
    return served


async def test_jobs_that_begin_alike_go_to_one_worker_and_others_to_all(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__prefix_bytes=32)
    with Producer(settings) as producer:
        async with running(settings, 4):
            alike = await workers_of(producer, store, [body(START, str(n)) for n in range(12)], 4)
            named = [body("short", "", prompt_cache_key=f"conversation {n % 2}") for n in range(16)]
            conversations = await workers_of(producer, store, named, 4)
            short = await workers_of(producer, store, [body("short", str(n)) for n in range(16)], 4)

    assert Counter(alike).most_common(1)[0][1] >= 11  # the second may come before the note of the first
    assert all(Counter(conversations[first::2]).most_common(1)[0][1] >= 7 for first in (0, 1))
    assert len(set(short)) > 1


async def test_a_job_does_not_wait_for_a_worker_that_is_busy_or_gone(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__prefix_bytes=32)
    with Producer(settings) as producer:
        async with running(settings, 1):
            first = await workers_of(producer, store, [body(START, "")])
        [key] = store.keys("bl:prefix:*")
        assert store.get(key) == first[0][2:-1].encode()
        async with running(settings, 1):
            loop = asyncio.get_running_loop()
            start_s = loop.time()
            second = await workers_of(producer, store, [body(START, str(n)) for n in range(3)])
            took_s = loop.time() - start_s
            assert store.get(key) == second[-1][2:-1].encode()

    assert len(set(second) | set(first)) == 2
    assert took_s < 1.5 + settings.worker.block_s  # the first may be found by a poll only


@pytest.mark.parametrize("count", [0, 32])
async def test_what_is_off_leaves_nothing_in_redis(redis_url: str, store: redis.Redis, count: int) -> None:
    settings = make_settings(redis_url, queue__prefix_bytes=count)
    with Producer(settings) as producer:
        async with running(settings, 1):
            await workers_of(producer, store, [body(START, "")])

    assert bool(store.keys("bl:prefix:*")) == bool(count)
