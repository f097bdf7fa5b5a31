"""workers/lease.py: what one worker holds, on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from dispatcher.producer import Producer
from dispatcher.queue.connection import connect
from dispatcher.queue.job_queue import JobQueue
from dispatcher.queue.plan import claim_plan
from tests.conftest import make_settings, wait_until
from workers.lease import LeaseKeeper

BODY = {"model": "smollm2", "prompt": "x"}


@pytest.fixture
def keeper(redis_url: str, store: redis.Redis) -> Iterator[LeaseKeeper]:
    settings = make_settings(redis_url, queue__lease_s=1)
    keeper = LeaseKeeper(settings, "smollm2", "int4", "me", held=list, drop=lambda lost, cancelled: None)
    yield keeper
    keeper.stop()


async def test_a_job_whose_claim_was_never_answered_goes_back_uncharged(
    keeper: LeaseKeeper, redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1)
    producer = Producer(settings)
    job_id = producer.submit_many([BODY])[0]
    producer.close()
    client = connect(settings.redis)
    queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
    await queue.claim("me", "smollm2", "int4", plan, 1)  # its answer is lost: the keeper is never told

    keeper.start()
    wait_until(lambda: store.llen("rq:queue:smollm2:int4:batch") == 1, "the job waits again")
    again = (await queue.claim("other", "smollm2", "int4", plan, 1)).jobs
    await client.aclose()

    assert [(job.job_id, job.attempt, job.fence) for job in again] == [(job_id, 1, 2)]


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

    keeper.start()
    wait_until(lambda: store.llen("rq:queue:smollm2:int4:batch") == 1, "the job waits again")

    assert time.monotonic() - started > 0.5
    assert store.zscore("bl:workers", "dead") is None
