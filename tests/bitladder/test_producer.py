"""bitladder/producer.py: queueing and waiting without HTTP, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis

from bitladder.contract import Lane, Outcome, State
from bitladder.errors import ConfigError, QueueFullError, QueueUnreachableError, RequestError
from bitladder.producer import BUNDLE, Producer
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import free_port, make_settings, wait_until

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "aaaa bbbb"}
QUEUE = "rq:queue:smollm2:int4:batch"


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    with Producer(settings) as producer:
        yield producer


def queued(store: redis.Redis, tier: str = "int4") -> list[str]:
    return [str(job_id, "ascii") for job_id in store.lrange(f"rq:queue:smollm2:{tier}:batch", 0, -1)]  # type: ignore[arg-type]  # bytes


def bodies(count: int) -> Iterator[dict[str, Any]]:
    return (BODY | {"prompt": f"aaaa {number}"} for number in range(count))


def test_many_bodies_are_answered_in_order_and_queued_in_order(producer: Producer, store: redis.Redis) -> None:
    ids = producer.submit_many(bodies(3 * BUNDLE + 7))

    assert queued(store) == ids


def test_urgent_and_batch_bodies_of_one_call_keep_their_places(producer: Producer, store: redis.Redis) -> None:
    mixed = [BODY, {"model": "smollm2", "prompt": "".join(map(chr, range(33, 127)))}] * 3

    ids = producer.submit_many(mixed)

    assert queued(store) == ids[::2]
    assert queued(store, "int8") == ids[1::2]


def test_a_wrong_body_ends_the_call_and_what_was_sent_before_stays_queued(
    producer: Producer, store: redis.Redis
) -> None:
    def some() -> Iterator[dict[str, Any]]:
        yield from bodies(2 * BUNDLE)
        yield {"model": "smollm2"}

    with pytest.raises(RequestError, match="prompt"):
        producer.submit_many(some())

    wait_until(lambda: store.llen(QUEUE) == 2 * BUNDLE, "both bundles are queued")
    assert producer.submit(BODY)  # the connection is in step


def test_a_server_that_forgot_the_scripts_is_told_them_again(producer: Producer, store: redis.Redis) -> None:
    producer.submit(BODY)
    store.script_flush()
    first = producer.submit(BODY)
    store.script_flush()

    store.delete(QUEUE)
    ids = producer.submit_many(bodies(5 * BUNDLE + 7))

    assert first
    assert queued(store) == ids


def test_a_connection_that_is_cut_costs_no_job_and_queues_none_twice(producer: Producer, store: redis.Redis) -> None:
    def cutting() -> Iterator[dict[str, Any]]:
        for number, body in enumerate(bodies(4 * BUNDLE)):
            if number == 2 * BUNDLE + 1:
                store.client_kill_filter(_type="normal", skipme=True)
            yield body

    ids = producer.submit_many(cutting())

    assert sorted(map(str, ids)) == sorted(queued(store))


def test_an_unreachable_redis_is_said(store: redis.Redis) -> None:
    with (
        Producer(make_settings(f"redis://127.0.0.1:{free_port()}/0")) as producer,
        pytest.raises(QueueUnreachableError, match="Redis"),
    ):
        producer.submit(BODY)


def test_a_server_that_forbids_to_load_scripts_is_said(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url.replace("//", "//limited:word@"))
    store.acl_setuser("limited", enabled=True, passwords=["+word"], commands=["+@all"], keys=["*"], channels=["*"])
    try:
        with Producer(settings) as producer:
            store.script_flush()
            store.acl_setuser("limited", enabled=True, passwords=["+word"], commands=["-script"], keys=["*"])
            with pytest.raises(QueueUnreachableError, match="script"):
                producer.submit(BODY)
        with pytest.raises(ConfigError, match=r"script.*compose/redis\.acl|compose/redis\.acl.*script"):
            Producer(settings)
    finally:
        store.acl_deluser("limited")


def test_a_repeated_key_is_run_to_the_outcome_of_its_first_job(producer: Producer, store: redis.Redis) -> None:
    key = {"Idempotency-Key": "once"}
    first = producer.submit(BODY, headers=key)
    store.hset(f"rq:job:{first}", "outcome", '{"state":"finished","status":200}')

    assert producer.run(BODY, headers=key, timeout_s=0) == Outcome(state=State.FINISHED, status=200)


def test_a_full_queue_refuses(redis_url: str, store: redis.Redis) -> None:
    with Producer(make_settings(redis_url, queue__max_depth=2)) as producer:
        answers = producer.submit_many([BODY, BODY, BODY])

        with pytest.raises(QueueFullError):
            producer.submit(BODY, lane=Lane.BATCH)

    assert [type(answer) for answer in answers] == [str, str, QueueFullError]


def test_a_body_is_run_to_its_outcome(producer: Producer, settings: Settings, store: redis.Redis) -> None:
    ends = threading.Thread(target=end_the_next_job, args=(settings,))
    ends.start()

    outcome = producer.run(BODY, lane=Lane.BATCH, timeout_s=10)
    ends.join()

    assert outcome is not None
    assert outcome.answer == b'{"ok":true}'
    assert producer.run(BODY, timeout_s=0.05) is None  # nobody ends this one


def end_the_next_job(settings: Settings) -> None:
    async def work() -> None:
        client = connect(settings.redis)
        queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
        await client.blpop(["bl:wake:smollm2:int4"], timeout=10)
        claimed = (await queue.claim("w", "smollm2", "int4", plan, 9)).jobs
        done = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))
        await queue.finish("w", [Finished(job=job, outcome=done) for job in claimed])
        await client.aclose()

    asyncio.run(work())


def test_an_outcome_is_awaited_and_none_is_none(producer: Producer, store: redis.Redis) -> None:
    job_id = producer.submit(BODY)

    assert producer.wait(job_id, timeout_s=0.05) is None
    store.hset(f"rq:job:{job_id}", "outcome", '{"state":"finished","status":200}')
    assert producer.wait(job_id, timeout_s=5) == Outcome(state=State.FINISHED, status=200)
