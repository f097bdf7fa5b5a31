"""One worker that gets a job a second time: what it still says about the first time must not touch the second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
import redis

from dispatcher.contract import Claimed, Outcome, State
from dispatcher.producer import Producer
from dispatcher.queue.commands import Finished
from dispatcher.queue.connection import connect
from dispatcher.queue.job_queue import JobQueue
from dispatcher.queue.plan import claim_plan
from dispatcher.sections import Settings
from tests.conftest import make_settings
from workers.lease import LeaseKeeper

DONE = Outcome(state=State.FINISHED, status=200)
BODY = {"model": "smollm2", "prompt": "aaaa"}


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def claim(queue: JobQueue) -> Claimed:
    plan = claim_plan(queue.settings, "smollm2", "int4")
    return (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs[0]


async def claimed_twice(queue: JobQueue, store: redis.Redis) -> tuple[Claimed, Claimed]:
    """Let one worker claim a job, lose its lease, and claim the job again."""
    with Producer(queue.settings) as producer:
        producer.submit(BODY)
    first = await claim(queue)
    store.zadd("bl:workers", {"me": 1})
    keeper = LeaseKeeper(queue.settings, "smollm2", "int4", "reaper", held=list, drop=lambda lost, cancelled: None)
    keeper.reap()
    return first, await claim(queue)


async def test_the_late_finish_of_a_lost_claim_leaves_the_new_claim_alone(queue: JobQueue, store: redis.Redis) -> None:
    first, second = await claimed_twice(queue, store)

    accepted = await queue.finish("me", [Finished(job=first, outcome=DONE)])

    assert (first.fence, second.fence) == (1, 2)
    assert accepted == [False]
    assert store.smembers("bl:inflight:me") == {second.job_id.encode()}  # else nobody would ever reap it


async def test_a_late_return_of_a_lost_claim_leaves_the_new_claim_alone(queue: JobQueue, store: redis.Redis) -> None:
    first, second = await claimed_twice(queue, store)

    result = await queue.give_back("me", first, first.queue, word="free", last=DONE)

    assert result == "lost"
    assert store.smembers("bl:inflight:me") == {second.job_id.encode()}


async def test_a_job_that_its_worker_has_found_meanwhile_is_no_stray(
    queue: JobQueue, store: redis.Redis, redis_url: str
) -> None:
    with Producer(queue.settings) as producer:
        producer.submit(BODY)
    job = await claim(queue)
    held: list[str] = []
    lost: list[str] = []
    keeper = LeaseKeeper(
        make_settings(redis_url, queue__lease_s=1),
        "smollm2",
        "int4",
        "me",
        held=lambda: held,
        drop=lambda gone, cancelled: lost.extend(gone),
    )
    keeper.renew()
    await asyncio.sleep(0.4)  # a third of a lease and a little: what is not known by then is a stray
    keeper.renew()

    held.append(job.job_id)  # the answer to its claim was late
    keeper.renew()

    assert lost == []
    assert store.smembers("bl:inflight:me") == {job.job_id.encode()}


async def test_a_worker_whose_record_expired_is_forgotten_by_rq_s_lists_too(
    queue: JobQueue, store: redis.Redis
) -> None:
    keeper = LeaseKeeper(queue.settings, "smollm2", "int4", "gone", held=list, drop=lambda lost, cancelled: None)
    keeper.renew()
    store.delete("rq:worker:gone")
    store.zadd("bl:workers", {"gone": 1})

    keeper.reap()

    assert store.keys("rq:workers*") == []
