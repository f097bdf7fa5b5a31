"""bitladder/producer/batch.py: a batch has its ids before it is sent, is stored once, and any process may open it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis

from bitladder.contract import Outcome, State
from bitladder.entries import Entry
from bitladder.errors import (
    BitladderError,
    GoneError,
    NotFoundError,
    QueueUnreachableError,
    RequestError,
)
from bitladder.producer import BUNDLE, Batch, Producer
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import OwnValkey, free_port, make_settings

QUEUE = "rq:queue:smollm2:int4:batch"
# The batch of 1970 is as old as ids can be.
OLD = '{"id":"00000000-0000-7000-8000-000000000000","count":1}'


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    with Producer(settings) as producer:
        yield producer


def bodies(count: int) -> list[dict[str, Any]]:
    return [{"model": "smollm2", "prompt": f"aaaa {number}"} for number in range(count)]


def queued(store: redis.Redis) -> list[str]:
    return [str(job_id, "ascii") for job_id in store.lrange(QUEUE, 0, -1)]  # type: ignore[arg-type]  # bytes


@contextlib.contextmanager
def working(settings: Settings) -> Iterator[list[str]]:
    """Do a worker's work meanwhile: the answer of a job is its own id. Yields the ids that have run."""
    ran: list[str] = []
    is_over = threading.Event()

    async def work() -> None:
        client = connect(settings.redis)
        queue, plan = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4")
        while not is_over.is_set():
            jobs = (await queue.claim("w", "smollm2", "int4", plan, 50)).jobs
            ran.extend(job.job_id for job in jobs)
            answers = [msgspec.Raw(msgspec.json.encode(job.job_id)) for job in jobs]
            ends = [Outcome(state=State.FINISHED, status=200, body=answer) for answer in answers]
            await queue.finish("w", [Finished(job=job, outcome=end) for job, end in zip(jobs, ends, strict=True)])
            if not jobs:
                await client.blpop(["bl:wake:smollm2:int4"], timeout=0.1)
        await client.aclose()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        yield ran
    finally:
        is_over.set()
        thread.join()


def answers(outcomes: list[Outcome | BitladderError]) -> list[object]:
    return [msgspec.json.decode(end.body) if isinstance(end, Outcome) else end.code for end in outcomes]


def test_ids_are_known_before_and_another_process_gathers_in_order_by_the_stored_handle(
    producer: Producer, settings: Settings, store: redis.Redis
) -> None:
    batch = producer.batch([*bodies(BUNDLE + 3), {"model": "smollm2"}, Entry(bodies(1)[0], {"X-Priority": 99})])
    before = batch.as_json()
    assert (len(batch), queued(store)) == (BUNDLE + 5, [])

    assert batch.submit() == BUNDLE + 3
    stored = batch.as_json()
    assert queued(store) == batch.job_ids[: BUNDLE + 3]
    assert sorted(batch.refused) == [BUNDLE + 3, BUNDLE + 4]

    with working(settings), Producer(settings) as other:
        outcomes = other.open_batch(stored).gather(timeout_s=20)
        known_before = other.open_batch(before).gather(timeout_s=20)
        counts = other.open_batch(before).counts()

    assert answers(outcomes) == [*batch.job_ids[: BUNDLE + 3], "invalid_request", "invalid_request"]
    assert [error.index for error in outcomes if isinstance(error, BitladderError)] == [BUNDLE + 3, BUNDLE + 4]
    assert [type(error) for error in known_before[BUNDLE + 3 :]] == [NotFoundError, NotFoundError]
    assert counts == {"queued": 0, "running": 0, "finished": BUNDLE + 3, "failed": 0, "cancelled": 0, "missing": 2}


def test_a_batch_that_is_submitted_again_or_by_another_process_runs_once(
    producer: Producer, settings: Settings, store: redis.Redis
) -> None:
    batch = producer.batch(bodies(10))
    with working(settings) as ran:
        batch.submit()
        first = batch.gather(timeout_s=20)
        batch.submit()
        again = producer.open_batch(batch.as_json(), bodies(10)).gather(timeout_s=20)

    assert first == again
    assert ran == batch.job_ids
    assert queued(store) == []


def test_a_batch_of_an_iterator_flows_through_a_queue_that_holds_less(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__max_depth=100)
    with Producer(settings) as producer, working(settings) as ran:
        batch = producer.batch(iter(bodies(1000)))
        seen = {done.index: done.job_id for done in batch.as_completed(timeout_s=30)}

    assert seen == dict(enumerate(batch.job_ids))
    assert sorted(ran) == sorted(batch.job_ids)
    assert batch.refused == {}


def test_a_batch_waits_for_a_queue_that_others_have_filled(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__max_depth=3)
    with Producer(settings) as producer:
        producer.submit_many(bodies(3))
        batch = producer.batch(bodies(5))

        assert answers(batch.gather(timeout_s=0.1)) == ["not_ended"] * 5
        assert batch.submit() == 0
        with working(settings):
            assert answers(producer.open_batch(batch.as_json(), bodies(5)).gather(timeout_s=20)) == batch.job_ids


def test_what_waits_is_cancelled_and_what_has_ended_stays(
    producer: Producer, settings: Settings, store: redis.Redis
) -> None:
    batch, done = producer.batch(bodies(300)), producer.batch(bodies(2))
    with working(settings):
        done.gather(timeout_s=20)
    batch.submit()

    assert (batch.cancel(), batch.cancel(), done.cancel()) == (300, 0, 0)
    assert batch.counts()["cancelled"] == 300
    assert {end.state for end in batch.gather() if isinstance(end, Outcome)} == {State.CANCELLED}


def test_a_batch_goes_on_when_redis_is_back_and_runs_nothing_twice(own_valkey: OwnValkey) -> None:
    settings = make_settings(own_valkey.url, redis__timeout_s=0.5)
    is_over, ran = threading.Event(), list[str]()

    def come_back() -> None:
        own_valkey.start()
        with working(settings) as ids:
            is_over.wait(60)
        ran.extend(ids)

    server = threading.Thread(target=come_back)

    def interrupted() -> Iterator[dict[str, Any]]:
        yield from bodies(2 * BUNDLE)
        own_valkey.kill()
        server.start()
        yield from bodies(BUNDLE)

    with Producer(settings) as producer:
        batch = producer.batch(interrupted())
        seen = {done.index: done.outcome for done in batch.as_completed(timeout_s=60)}
    is_over.set()
    server.join()

    assert answers([seen[index] for index in range(3 * BUNDLE)]) == batch.job_ids
    assert sorted(ran) == sorted(batch.job_ids)


def test_an_unreachable_redis_is_said_at_once(store: redis.Redis) -> None:
    with Producer(make_settings(f"redis://127.0.0.1:{free_port()}/0")) as producer:
        for ask in (Batch.counts, Batch.cancel, lambda batch: next(batch.as_completed())):
            with pytest.raises(QueueUnreachableError):
                ask(producer.batch(bodies(3)))


@pytest.mark.parametrize("handle", ["", "{}", "[]", b"\xff", '{"id": "x"}', '{"id": 7, "count": 1}'])
def test_what_is_no_handle_is_refused_with_what_is_expected(producer: Producer, handle: str | bytes) -> None:
    with pytest.raises(RequestError, match="as_json"):
        producer.open_batch(handle)


def test_a_handle_fits_its_requests_alone(producer: Producer) -> None:
    handle = producer.batch(bodies(3)).as_json()

    with pytest.raises(RequestError, match="has 3 requests, got 2"):
        producer.open_batch(handle, bodies(2))
    with pytest.raises(RequestError, match="pass them to open_batch"):
        producer.open_batch(handle).submit()
    with pytest.raises(RequestError, match="no length before"):
        producer.batch(iter(bodies(3))).as_json()


def test_jobs_of_an_old_batch_are_no_longer_stored(producer: Producer, store: redis.Redis) -> None:
    (error,) = producer.open_batch(OLD).gather(timeout_s=5)

    assert isinstance(error, GoneError)
