"""One worker that gets a job a second time: what it still says about the first time must not touch the second."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis

from bitladder.contract import Chunk, Claimed, Emitted, Outcome, State
from bitladder.producer import Producer
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import OwnValkey, make_settings
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
    keeper = LeaseKeeper(queue.settings, "smollm2", "int4", "reaper", held=dict, drop=lambda lost, cancelled: None)
    keeper.reap()
    return first, await claim(queue)


async def test_the_late_finish_of_a_lost_claim_leaves_the_new_claim_alone(queue: JobQueue, store: redis.Redis) -> None:
    first, second = await claimed_twice(queue, store)

    accepted = await queue.finish("me", [Finished(job=first, outcome=DONE)])

    assert first.fence < second.fence
    assert accepted == [False]
    assert store.smembers("bl:inflight:me") == {second.job_id.encode()}  # else nobody would ever reap it


async def test_a_late_return_of_a_lost_claim_leaves_the_new_claim_alone(queue: JobQueue, store: redis.Redis) -> None:
    first, second = await claimed_twice(queue, store)

    result = await queue.requeue("me", first, first.queue, reason=RequeueReason.UNCHARGED, last=DONE)

    assert result == "lost"
    assert store.smembers("bl:inflight:me") == {second.job_id.encode()}


async def test_a_claim_that_the_server_lost_shares_its_fence_with_no_other(own_valkey: OwnValkey) -> None:
    settings = make_settings(own_valkey.url)
    queue = JobQueue(connect(settings.redis), settings)
    with Producer(settings) as producer:
        producer.submit(BODY | {"stream": True})
    folder = Path(own_valkey.settings.data_dir)
    kept = shutil.copytree(folder, folder.with_name("kept"))  # what was on the disk: the rest is the last second

    lost = await claim(queue)
    await queue.emit("me", [(lost.job_id, Chunk(fence=lost.fence, number=number, data=b"old")) for number in (1, 2)])
    own_valkey.kill()
    shutil.rmtree(folder)
    kept.rename(folder)
    own_valkey.start()
    again = await claim(queue)
    new = [Chunk(fence=again.fence, number=number, data=b"new") for number in (1, 2, 3)]
    late = await queue.emit("me", [(lost.job_id, Chunk(fence=lost.fence, number=3, data=b"old"))])
    taken = await queue.emit("me", [(again.job_id, chunk) for chunk in new])
    behind = await queue.chunks(lost.job_id, lost.fence, 2)  # what a reader asks for that had the old ones
    ended = [await queue.finish("me", [Finished(job=job, outcome=DONE)]) for job in (lost, again)]
    await queue.aclose()

    assert (again.job_id, again.attempt) == (lost.job_id, 1)
    assert (late, taken) == ([Emitted.LOST], [Emitted.STORED] * 3)
    assert behind == new
    assert ended == [[False], [True]]


@pytest.mark.parametrize(("fields", "attempt"), [({"fence": 2, "uncharged": 1}, 2), ({"fence": 1}, 2), ({}, 1)])
async def test_a_job_whose_fences_were_counted_goes_on_with_its_attempts(
    queue: JobQueue, store: redis.Redis, fields: dict[str, int], attempt: int
) -> None:
    with Producer(queue.settings) as producer:
        job_id = producer.submit(BODY)
    for name, value in fields.items():
        store.hset(f"rq:job:{job_id}", name, value)  # as an older version left them

    job = await claim(queue)
    view = await queue.view(job_id)
    await queue.requeue("me", job, job.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    again = await claim(queue)

    assert (job.attempt, again.attempt) == (attempt, attempt)
    assert job.fence < again.fence
    assert view is not None
    assert view.attempts == attempt


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
        held=lambda: dict.fromkeys(held, 0),
        drop=lambda gone, cancelled: lost.extend(gone),
    )
    keeper.renew()
    await asyncio.sleep(0.4)  # a third of a lease and a little: what is not known by then is a stray
    keeper.renew()

    held.append(job.job_id)  # the answer to its claim was late
    keeper.renew()

    assert lost == []
    assert store.smembers("bl:inflight:me") == {job.job_id.encode()}


async def test_a_stray_that_was_claimed_anew_since_it_was_seen_stays_with_its_worker(
    queue: JobQueue, store: redis.Redis, redis_url: str
) -> None:
    with Producer(queue.settings) as producer:
        producer.submit(BODY)
    await claim(queue)  # its answer is lost
    keeper = LeaseKeeper(
        make_settings(redis_url, queue__lease_s=1),
        "smollm2",
        "int4",
        "me",
        held=dict,
        drop=lambda gone, cancelled: None,
    )
    keeper.renew()
    await asyncio.sleep(0.4)
    keeper.renew()  # a stray, which the next renewal returns

    store.zadd("bl:workers", {"me": 1})
    keeper.reap()  # or a renewal returned it whose answer was lost, and which is sent again
    again = await claim(queue)
    keeper.renew()  # it was under way before the answer to this claim

    assert store.smembers("bl:inflight:me") == {again.job_id.encode()}
    assert store.llen(f"rq:queue:{again.queue}") == 0  # else it would run twice


async def test_a_cancellation_is_told_again_when_the_answer_to_a_renewal_was_lost(
    queue: JobQueue, store: redis.Redis
) -> None:
    with Producer(queue.settings) as producer:
        producer.submit(BODY)
    job = await claim(queue)
    await queue.cancel(job.job_id)
    told: list[list[str]] = []
    keeper = LeaseKeeper(
        queue.settings,
        "smollm2",
        "int4",
        "me",
        held=lambda: {job.job_id: job.fence},
        drop=lambda gone, cancelled: told.append(cancelled),
    )

    keeper.renew()  # as far as its worker knows, this one has not arrived
    keeper.renew()
    await queue.finish("me", [Finished(job=job, outcome=DONE)])
    keeper.renew()

    assert told[:2] == [[job.job_id]] * 2
    assert store.exists("bl:cancel:me") == 0


async def test_a_worker_whose_record_expired_is_forgotten_by_rq_s_lists_too(
    queue: JobQueue, store: redis.Redis
) -> None:
    keeper = LeaseKeeper(queue.settings, "smollm2", "int4", "gone", held=dict, drop=lambda lost, cancelled: None)
    keeper.renew()
    store.delete("rq:worker:gone")
    store.zadd("bl:workers", {"gone": 1})

    keeper.reap()

    assert store.keys("rq:workers*") == []
