"""bitladder/queue/scripted_ends.py: the ends that scripts write by themselves are taken where outcomes are signed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import redis

from bitladder.contract import State
from bitladder.producer import Producer
from bitladder.queue.calls.claim import Claims
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.scripted_ends import SCRIPTED
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from workers.lease import LeaseKeeper

BODY = {"model": "smollm2", "prompt": "aaaa"}


@pytest.fixture
def settings(redis_url: str, store: redis.Redis) -> Settings:
    return make_settings(redis_url, queue__secrets=["a secret of the fleet"], queue__max_attempts=1)


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def claim(queue: JobQueue) -> Claims:
    return await queue.claim("me", "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 1)


def late(store: redis.Redis, job_id: str) -> None:
    store.hset(f"rq:job:{job_id}", "wait", "1 2 1")


def odd(store: redis.Redis, job_id: str) -> None:
    store.hset(f"rq:job:{job_id}", "status", "odd")


def without_status(store: redis.Redis, job_id: str) -> None:
    store.hdel(f"rq:job:{job_id}", "status")


def with_a_callback(store: redis.Redis, job_id: str) -> None:
    store.hset(f"rq:job:{job_id}", "success_callback_name", "os.getcwd")
    store.hdel(f"rq:job:{job_id}", "wait")


def sound(store: redis.Redis, job_id: str) -> None:
    del store, job_id


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (late, "deadline_exceeded"),
        (odd, "corrupt_job"),
        (without_status, "corrupt_job"),
        (with_a_callback, "unsupported"),
        (sound, "worker_lost"),
    ],
)
async def test_with_keys_a_job_that_a_script_ended_reads_as_that_end(
    queue: JobQueue, store: redis.Redis, spoil: Callable[[redis.Redis, str], None], code: str
) -> None:
    with Producer(queue.settings) as producer:
        job_id = producer.submit(BODY)
    spoil(store, job_id)

    if (await claim(queue)).jobs:
        store.delete("bl:unbegun:me")  # its engine has begun the job
        store.zadd("bl:workers", {"me": 1})
        LeaseKeeper(queue.settings, "smollm2", "int4", "reaper", held=dict, drop=lambda lost, cancelled: None).reap()
    view = await queue.view(job_id)

    assert view
    assert view.outcome
    assert (view.state, view.outcome.code, view.outcome.error) == (
        State.EXPIRED if code == "deadline_exceeded" else State.FAILED,
        code,
        SCRIPTED[code].error,
    )
