"""workers/lease.py: what one worker holds, on a real Valkey."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from bitladder.producer import Producer
from bitladder.queue.calls.leases import MAX_MOVED
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import Lane
from tests.conftest import make_settings, wait_until
from workers.lease import LeaseKeeper

BODY = {"model": "smollm2", "prompt": "x"}


@pytest.fixture
def keeper(redis_url: str, store: redis.Redis) -> Iterator[LeaseKeeper]:
    settings = make_settings(redis_url, queue__lease_s=1)
    keeper = LeaseKeeper(settings, "smollm2", "int4", "me", held=dict, drop=lambda lost, cancelled: None)
    yield keeper
    keeper.stop()


@pytest.fixture
def sweeper(redis_url: str, store: redis.Redis) -> Iterator[LeaseKeeper]:
    """Reaps when the test calls it, not by itself."""
    settings = make_settings(redis_url, queue__lease_s=60)
    keeper = LeaseKeeper(settings, "smollm2", "int4", "me", held=dict, drop=lambda lost, cancelled: None)
    yield keeper
    keeper._client.close()


def start(keeper: LeaseKeeper) -> None:
    threading.Thread(target=keeper.run, daemon=True).start()


async def test_a_job_whose_claim_was_never_answered_goes_back_uncharged(
    keeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    producer = Producer(settings)
    job_id = producer.submit_many([BODY])[0]
    producer.close()
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    (lost,) = (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs  # the keeper never learns of them

    start(keeper)
    wait_until(lambda: store.llen("rq:queue:smollm2:int4:batch") == 1, "the job waits again")
    again = (await queue.claim("other", "smollm2", "int4", plan, 1)).jobs
    await client.aclose()

    assert [(job.job_id, job.attempt, job.fence > lost.fence) for job in again] == [(job_id, 1, True)]


@pytest.mark.parametrize(("size", "code"), [(2_000_000, "undeliverable"), (1000, None)], ids=["large", "small"])
async def test_a_job_that_no_claim_brings_to_its_worker_has_an_end_if_its_size_may_be_why(
    keeper: LeaseKeeper, redis_url: str, store: redis.Redis, size: int, code: str | None
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    with Producer(settings) as producer:
        job_id = producer.submit(BODY | {"prompt": "x" * size}, lane=Lane.BATCH)
        client = connect(settings.redis)
        queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
        start(keeper)

        # As often as a job may come back unbegun, and then its attempts.
        for _ in range(3 + settings.queue.max_attempts):
            assert (
                len((await queue.claim("me", "smollm2", "int4", plan, 1)).jobs) == 1
            )  # the keeper never learns of them
            wait_until(lambda: store.scard("bl:inflight:me") == 0, "the job is the worker's no more")
        await client.aclose()
        outcome = producer.outcome(job_id)

    assert (outcome.code if outcome else None) == code
    assert store.zcard("bl:dead_letters") == (1 if code else 0)
    assert store.llen("rq:queue:smollm2:int4:batch") == (0 if code else 1)


async def test_what_a_claim_brings_is_no_stray_while_its_answer_arrives(
    keeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    with Producer(settings) as producer:
        producer.submit(BODY, lane=Lane.BATCH)
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    with keeper.claiming():
        await queue.claim("me", "smollm2", "int4", plan, 1)
        start(keeper)
        await asyncio.sleep(2)  # six renewals: without it, the third would requeue the job
        held = store.scard("bl:inflight:me")
    await client.aclose()

    assert held == 1
    wait_until(lambda: store.llen("rq:queue:smollm2:int4:batch") == 1, "the job waits again")


async def test_what_a_leaving_worker_holds_without_knowing_goes_back_at_once_and_uncharged(
    sweeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url)
    with Producer(settings) as producer:
        producer.submit_many([BODY] * (MAX_MOVED + 1))
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    await queue.claim("me", "smollm2", "int4", plan, 1000)  # its answer is lost: the keeper never learns of them
    leaving = LeaseKeeper(settings, "smollm2", "int4", "me", held=dict, drop=lambda lost, cancelled: None)

    leaving.stop()
    again = (await queue.claim("other", "smollm2", "int4", plan, 1000)).jobs
    await client.aclose()

    assert [job.attempt for job in again] == [1] * (MAX_MOVED + 1)
    assert store.zscore("bl:workers", "me") is None
    assert store.keys("bl:*:me") == []


async def test_a_worker_that_is_silent_for_a_lease_loses_its_jobs(
    keeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    producer = Producer(settings)
    producer.submit_many([BODY])
    producer.close()
    client = connect(settings.redis)
    await JobQueue(client, settings).claim("dead", "smollm2", "int4", claim_plan(settings, "smollm2", "int4"), 1)
    await client.aclose()
    started = time.monotonic()

    start(keeper)
    wait_until(lambda: store.llen("rq:queue:smollm2:int4:batch") == 1, "the job waits again")

    assert time.monotonic() - started > 0.5
    assert store.zscore("bl:workers", "dead") is None


async def test_a_blocked_event_loop_costs_no_lease(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    keeper = LeaseKeeper(settings, "smollm2", "int4", "me", held=dict, drop=lambda lost, cancelled: None)
    start(keeper)

    time.sleep(2.5)  # noqa: ASYNC251  (the loop is blocked, for more than two leases)
    seconds, micros = store.time()
    lease: Any = store.zscore("bl:workers", "me")
    keeper.stop()

    assert lease > seconds * 1000 + micros / 1000


async def test_a_cancellation_that_was_not_heard_is_learnt_at_the_next_renewal(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    with Producer(settings) as producer:
        job_id = producer.submit(BODY)
    (held,) = (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs
    dropped: list[str] = []
    keeper = LeaseKeeper(
        settings,
        "smollm2",
        "int4",
        "me",
        held=lambda: {held.job_id: held.fence},
        drop=lambda lost, cancelled: dropped.extend(cancelled),
    )

    word = await queue.cancel(job_id)  # the control channel has no listener
    start(keeper)
    wait_until(lambda: dropped == [job_id], "the worker learns of it")
    keeper.stop()
    await client.aclose()

    assert word == "requested"


async def test_two_reapers_at_once_put_each_job_back_once(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    with Producer(settings) as producer:
        ids = [str(job_id) for job_id in producer.submit_many([BODY] * 600)]
    await queue.claim("dead", "smollm2", "int4", plan, 600)
    store.zadd("bl:workers", {"dead": 1})
    keepers = [
        LeaseKeeper(settings, "smollm2", "int4", name, held=dict, drop=lambda lost, cancelled: None) for name in "ab"
    ]

    await asyncio.gather(*(asyncio.to_thread(keeper.reap) for keeper in keepers for _ in range(4)))
    waiting: Any = store.lrange("rq:queue:smollm2:int4:batch", 0, -1)
    await client.aclose()

    assert sorted(job_id.decode() for job_id in waiting) == sorted(ids)
    assert store.exists("bl:inflight:dead") == 0


async def test_ten_thousand_abandoned_jobs_come_back_in_batches_while_others_are_served(
    sweeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=60)
    with Producer(settings) as producer:
        abandoned = set(producer.submit_many(BODY for _ in range(10_000)))
        client = connect(settings.redis)
        queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
        while (await queue.claim("dead", "smollm2", "int4", plan, 500)).jobs:
            pass
        held = store.scard("bl:inflight:dead")
        fresh = [producer.submit(BODY, lane=Lane.URGENT) for _ in range(40)]
    store.zadd("bl:workers", {"dead": 1})

    moved, served = [], []
    while before := store.scard("bl:inflight:dead"):
        sweeper._reap_batch()
        moved.append(before - store.scard("bl:inflight:dead"))
        served += [job.job_id for job in (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs]
    left = store.llen("rq:queue:smollm2:int4:batch")
    await client.aclose()

    assert held == 10_000
    assert max(moved) <= MAX_MOVED
    assert len(served) == len(moved)  # a claim between any two passes finds its job
    assert set(fresh) & set(served)
    assert left + len(set(served) & abandoned) == 10_000
    assert store.zscore("bl:workers", "dead") is None


async def test_the_jobs_of_several_dead_workers_come_back_at_the_same_look(
    sweeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=60)
    with Producer(settings) as producer:
        producer.submit_many(BODY for _ in range(600))
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    for worker in ("one", "two", "three"):
        await queue.claim(worker, "smollm2", "int4", plan, 200)
        store.zadd("bl:workers", {worker: 1})
    await client.aclose()

    sweeper.reap()

    assert store.llen("rq:queue:smollm2:int4:batch") == 600
