"""An idempotency key finds its job for as long as that can be read: at every end, with the times to live that ship."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import redis

from bitladder.contract import Outcome, State, Submission
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.bitladder.queue.test_job_queue import claim, job, submit
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture

DONE = Outcome(state=State.FINISHED, status=200)
BROKEN = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

Deed = Callable[[JobQueue, Submission], Awaitable[object]]


def ttls(store: redis.Redis, mine: Submission) -> tuple[int, int]:
    """Return how long a job's record and the key live yet, in ms."""
    of_record, of_key = (store.pttl(key) for key in (f"rq:job:{mine.job_id}", "bl:idem:smollm2:default:k"))
    assert isinstance(of_record, int)
    assert isinstance(of_key, int)
    return of_record, of_key


async def finish(queue: JobQueue, mine: Submission) -> None:
    del mine
    (claimed,) = await claim(queue, "int4")
    assert await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE)]) == [True]


async def use_up(queue: JobQueue, mine: Submission) -> None:
    del mine
    for _ in range(queue.settings.queue.max_attempts):
        (claimed,) = await claim(queue, "int4")
        await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.CHARGED, last=BROKEN)


async def release(queue: JobQueue, mine: Submission) -> None:
    await use_up(queue, mine)
    letters = DeadLetters(queue)
    assert await letters.release(await letters.jobs()) == [mine.job_id]


async def drop(queue: JobQueue, mine: Submission) -> None:
    await use_up(queue, mine)
    letters = DeadLetters(queue)
    assert await letters.drop(await letters.jobs()) == [mine.job_id]


async def wait(queue: JobQueue, mine: Submission) -> None:
    del queue, mine


async def go_back(queue: JobQueue, mine: Submission) -> None:
    del mine
    (claimed,) = await claim(queue, "int4")
    assert (
        await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.UNCHARGED, last=BROKEN) == "returned"
    )


@pytest.mark.parametrize(
    ("deed", "kept_ms"),
    [
        (wait, DAY_MS + HOUR_MS),
        (go_back, DAY_MS + HOUR_MS),
        (finish, HOUR_MS),
        (use_up, 7 * DAY_MS),
        (drop, HOUR_MS),
        (release, DAY_MS + HOUR_MS),
    ],
)
async def test_a_key_lives_exactly_as_long_as_the_record_of_its_job(
    queue: JobQueue, store: redis.Redis, deed: Deed, kept_ms: int
) -> None:
    mine = job(idempotency_key="default:k", fingerprint="f")
    await submit(queue, mine)

    await deed(queue, mine)

    of_record, of_key = ttls(store, mine)
    assert abs(of_key - of_record) < 1000
    assert kept_ms - 60_000 < of_record <= kept_ms
    assert await submit(queue, job(idempotency_key="default:k", fingerprint="f")) == [mine.job_id]


@pytest.mark.parametrize("notice", ["claim", "client"])
async def test_the_key_of_a_job_that_expired_lives_as_long_as_its_record(
    queue: JobQueue, store: redis.Redis, notice: str
) -> None:
    mine = job(idempotency_key="default:k", fingerprint="f", deadline_ms=1)
    await submit(queue, mine)
    await asyncio.sleep(0.01)  # the server's clock has to move

    assert await (claim(queue, "int4") if notice == "claim" else queue.expire(mine.job_id)) in ([], True)

    of_record, of_key = ttls(store, mine)
    assert abs(of_key - of_record) < 1000
    assert await submit(queue, job(idempotency_key="default:k", fingerprint="f")) == [mine.job_id]


async def test_the_end_of_a_cancelled_job_that_was_queued_again_is_not_the_end_of_the_next_job_s_key(
    queue: JobQueue, store: redis.Redis
) -> None:
    first, second = (job(idempotency_key="default:k", fingerprint="f") for _ in range(2))
    await submit(queue, first)
    await queue.cancel(first.job_id)
    assert await submit(queue, second) == [second.job_id]
    store.hset(f"rq:job:{first.job_id}", "status", "queued")  # as RQ's tools requeue it

    (claimed, _) = await claim(queue, "int4")
    await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE)])

    assert claimed.job_id == first.job_id
    of_record, of_key = ttls(store, second)
    assert abs(of_key - of_record) < 1000


async def test_a_job_without_a_key_has_no_field_for_one(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    await submit(queue, mine)

    assert not store.hexists(f"rq:job:{mine.job_id}", "idem")


async def test_keys_of_two_models_and_tenants_are_never_the_same(settings: Settings) -> None:
    """Colons divide a key, and a model's name may have some."""
    model = settings.model("smollm2")
    named = settings.model_copy(update={"models": {"a": model, "a:b": model}})
    client = connect(settings.redis)
    queue = JobQueue(client, named)
    theirs, mine = (
        msgspec.structs.replace(job(idempotency_key=key, fingerprint="f"), model=name, queue=f"{name}:int4:normal")
        for name, key in (("a:b", "c:d"), ("a", "b:c:d"))
    )

    assert await submit(queue, theirs, mine) == [theirs.job_id, mine.job_id]
    await client.aclose()
