"""bitladder/producer/producer.py: queueing and waiting without HTTP, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis

from bitladder.contract import Outcome, State
from bitladder.entries import Entry
from bitladder.errors import (
    BitladderError,
    ConfigError,
    GoneError,
    NotEndedError,
    NotFoundError,
    PartlySubmittedError,
    QueueFullError,
    QueueUnreachableError,
    RequestError,
)
from bitladder.producer import BUNDLE, Producer
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import Lane
from bitladder.settings.sections import Settings
from tests.conftest import OwnValkey, free_port, make_settings

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "smollm2"},
        {"prompt": "x"},
        {"model": "other", "prompt": "x"},
        {"model": "smollm2", "prompt": ...},
        {"model": "smollm2", "prompt": b"bytes"},
        BODY | {"temperature": float("inf")},
        BODY | {"metadata": None, "logit_bias": [1.0, {"a": float("nan")}]},
        {"model": "smollm2", "prompt": "\ud800"},
        {"model": "smollm2", "messages": []},
        [BODY],
        "text",
        None,
        Entry(BODY, headers={"X-Priority": 99}),
        Entry(BODY, headers={"X-Priority": b"9"}),  # type: ignore[dict-item]  # what people write
        Entry(BODY, headers={"X-Min-Tier": "é"}),
        Entry(BODY, idempotency_key=""),
        Entry(BODY, idempotency_key="k" * 256),
    ],
    ids=lambda wrong: repr(wrong)[:60],
)
def test_a_wrong_body_is_an_error_in_its_place_and_the_others_are_queued(
    producer: Producer,
    store: redis.Redis,
    wrong: Any,  # noqa: ANN401  (whatever people write)
) -> None:
    answers = producer.submit_many([*bodies(BUNDLE + 2), wrong, *bodies(BUNDLE)])

    error = answers.pop(BUNDLE + 2)
    assert isinstance(error, RequestError)
    assert (error.index, error.status in (400, 404)) == (BUNDLE + 2, True)
    assert error.message
    assert queued(store) == answers


def test_nothing_but_wrong_bodies_is_answered_too(producer: Producer) -> None:
    answers = producer.submit_many({"model": "smollm2"} for _ in range(3 * BUNDLE + 1))

    assert [answer.index for answer in answers if isinstance(answer, RequestError)] == list(range(3 * BUNDLE + 1))


def test_an_iterable_that_raises_loses_no_id(producer: Producer, store: redis.Redis) -> None:
    def some() -> Iterator[dict[str, Any]]:
        yield from bodies(2 * BUNDLE + 7)
        yield json.loads("{")

    with pytest.raises(PartlySubmittedError, match="after 519 bodies") as partly:
        producer.submit_many(some())

    assert isinstance(partly.value.__cause__, json.JSONDecodeError)
    assert partly.value.answers == queued(store)
    assert len(partly.value.answers) == 2 * BUNDLE + 7
    assert producer.submit(BODY)  # the connection is in step


@pytest.mark.parametrize("value", [9, "9", 9.0])
def test_a_header_may_be_a_number(producer: Producer, store: redis.Redis, value: float) -> None:
    if isinstance(value, float):
        with pytest.raises(RequestError, match=r"X-Priority must be a whole number .* '9.0'"):
            producer.submit(BODY, headers={"X-Priority": value})
    else:
        job_id = producer.submit(BODY, headers={"x-priority": value})
        assert bytes(store.hget(f"rq:job:{job_id}", "origin") or b"").endswith(b":urgent")


def test_each_body_has_its_own_headers_and_key(producer: Producer, store: redis.Redis) -> None:
    entries = [
        Entry(body, {"X-Max-Tier": tier}, key)
        for key, (body, tier) in enumerate(zip(bodies(2), ("int4", "int8"), strict=True))
    ]

    first = producer.submit_many(entries, headers={"X-Max-Tier": "fp8"})
    again = producer.submit_many(entries)

    assert first == again
    assert [store.hget(f"rq:job:{job_id}", "origin") for job_id in first] == [
        b"smollm2:int4:batch:max-int4",
        b"smollm2:int4:batch:max-int8",
    ]


def test_one_key_for_many_bodies_is_refused_before_anything_is_sent(producer: Producer, store: redis.Redis) -> None:
    with pytest.raises(RequestError, match="Entry"):
        producer.submit_many(bodies(3), headers={"Idempotency-Key": "k"})

    assert store.keys("rq:*") == []


@pytest.mark.parametrize("single", [BODY, "text", b"bytes", None, 5, Entry(BODY)])
def test_one_where_many_are_expected_is_refused(producer: Producer, store: redis.Redis, single: object) -> None:
    many: Any = single
    for call in (producer.submit_many, producer.submit_each, producer.gather, producer.as_completed):
        with pytest.raises(RequestError, match="takes an iterable of them, got one"):
            call(many)

    assert store.keys("rq:*") == []


def test_a_repeat_after_a_crash_queues_only_what_was_not(producer: Producer, store: redis.Redis) -> None:
    entries = [Entry(body, idempotency_key=f"night-{number}") for number, body in enumerate(bodies(2 * BUNDLE))]
    for place, _ in enumerate(producer.submit_each(entries)):
        if place == BUNDLE:
            break  # the program ends here: another bundle may be on its way

    answers = producer.submit_many(entries)

    assert sorted(map(str, answers)) == sorted(queued(store))
    assert len(set(answers)) == 2 * BUNDLE


def test_bodies_of_any_number_are_taken_as_answers_are_read(producer: Producer) -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for taken in itertools.count():
            yield BODY if taken % 3 else {}

    read = list(itertools.islice(producer.submit_each(endless()), 5 * BUNDLE))

    assert len(read) == 5 * BUNDLE
    assert taken < 8 * BUNDLE


def test_calls_may_be_made_while_answers_are_read(producer: Producer, store: redis.Redis) -> None:
    ids: list[object] = []
    for answer in producer.submit_each(bodies(2 * BUNDLE)):
        ids.append(answer)
        if len(ids) in (1, BUNDLE + 1):
            ids += [producer.submit(BODY, lane=Lane.BATCH), *producer.submit_many(bodies(3))]

    assert sorted(map(str, ids)) == sorted(queued(store))


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
    end(store, first)

    assert producer.run(BODY, headers=key, timeout_s=0) == Outcome(state=State.FINISHED, status=200)


def test_a_full_queue_refuses(redis_url: str, store: redis.Redis) -> None:
    with Producer(make_settings(redis_url, queue__max_depth=2)) as producer:
        answers = producer.submit_many([BODY, BODY, BODY])

        with pytest.raises(QueueFullError):
            producer.submit(BODY, lane=Lane.BATCH)

    assert [type(answer) for answer in answers] == [str, str, QueueFullError]


def test_a_body_is_run_to_its_outcome(producer: Producer, settings: Settings, store: redis.Redis) -> None:
    ends = threading.Thread(target=end_jobs, args=(settings, 1))
    ends.start()

    outcome = producer.run(BODY, lane=Lane.BATCH, timeout_s=10)
    ends.join()

    assert outcome.answer == b'{"ok":true}'


def end_jobs(settings: Settings, count: int) -> None:
    """Do the work of a worker until so many jobs have ended."""

    async def work() -> None:
        client = connect(settings.redis)
        queue, plan, left = JobQueue(client, settings), claim_plan(settings, "smollm2", "int4"), count
        done = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))
        while left:
            await client.blpop(["bl:wake:smollm2:int4"], timeout=1)
            claimed = (await queue.claim("w", "smollm2", "int4", plan, min(left, 50))).jobs
            await queue.finish("w", [Finished(job=job, outcome=done) for job in claimed])
            left -= len(claimed)
        await client.aclose()

    asyncio.run(work())


def end(store: redis.Redis, job_id: str) -> None:
    """Store an outcome without saying so to anybody."""
    store.hset(f"rq:job:{job_id}", "outcome", '{"state":"finished","status":200}')
    store.hset(f"rq:job:{job_id}", "status", "finished")


DONE = Outcome(state=State.FINISHED, status=200)


def test_an_outcome_is_awaited_and_what_has_not_ended_is_said(producer: Producer, store: redis.Redis) -> None:
    job_id = producer.submit(BODY)

    assert producer.outcome(job_id) is None
    with pytest.raises(NotEndedError, match="has not ended") as late:
        producer.wait(job_id, timeout_s=0.05)
    end(store, job_id)
    assert late.value.job_ids == [job_id]
    assert producer.wait(job_id, timeout_s=5) == producer.outcome(job_id) == DONE


def test_a_run_that_is_not_over_in_time_says_which_job_goes_on(producer: Producer, store: redis.Redis) -> None:
    with pytest.raises(NotEndedError) as late:
        producer.run(BODY, timeout_s=0.05)

    end(store, late.value.job_ids[0])
    assert producer.wait(late.value.job_ids[0]) == DONE


def old_id(settings: Settings) -> str:
    """Return the id of a job of long ago."""
    made_ms = int((time.time() - settings.queue.result_ttl_s - 60) * 1000)
    return str(uuid.UUID(int=(made_ms << 80) | (7 << 76) | (2 << 62)))


@pytest.mark.parametrize("call", ["outcome", "wait"])
def test_an_unknown_id_and_an_expired_one_are_told_apart_at_once(
    producer: Producer, settings: Settings, store: redis.Redis, call: str
) -> None:
    deleted = producer.submit(BODY)
    store.delete(f"rq:job:{deleted}")
    start_s = time.monotonic()

    for unknown in (deleted, "another program's", "", "\udcff", str(uuid.uuid4())):
        with pytest.raises(NotFoundError):
            getattr(producer, call)(unknown)
    with pytest.raises(GoneError, match="no longer stored") as gone:
        getattr(producer, call)(old_id(settings))
    with pytest.raises(RequestError, match="must be text, got int"):
        getattr(producer, call)(5)
    with pytest.raises(RequestError, match="surrogates"):
        getattr(producer, call)("\ud800")

    assert (gone.value.status, gone.value.code) == (410, "result_expired")
    assert time.monotonic() - start_s < 5


def test_a_job_that_is_deleted_while_it_is_awaited_is_said(producer: Producer, store: redis.Redis) -> None:
    job_id = producer.submit(BODY)
    wait = threading.Timer(0.3, lambda: store.delete(f"rq:job:{job_id}"))
    wait.start()

    with pytest.raises(NotFoundError):
        producer.wait(job_id, timeout_s=30)


def test_outcomes_are_gathered_in_order_with_errors_in_their_places(
    producer: Producer, settings: Settings, store: redis.Redis
) -> None:
    answers = producer.submit_many([BODY, {}, BODY, BODY])
    for job_id in (answers[0], answers[3]):
        end(store, str(job_id))

    results = producer.gather([*answers, "unknown", old_id(settings), answers[0]], timeout_s=0)

    kinds = [type(result) for result in results]
    assert kinds == [Outcome, RequestError, NotEndedError, Outcome, NotFoundError, GoneError, Outcome]
    assert [result.index for result in results if isinstance(result, BitladderError)] == [1, 2, 4, 5]


def test_jobs_come_as_they_complete_and_the_rest_is_named(producer: Producer, settings: Settings) -> None:
    ids = [str(job_id) for job_id in producer.submit_many(bodies(40))]
    completed = producer.as_completed(ids, timeout_s=3)
    end_jobs(settings, 10)
    first = list(itertools.islice(completed, 10))
    ending = threading.Timer(0.2, end_jobs, (settings, 10))
    ending.start()
    second = list(itertools.islice(completed, 10))
    ending.join()
    with pytest.raises(NotEndedError, match="20 jobs have not ended after 3 s") as late:
        next(completed)

    assert {done.job_id for done in first} == set(ids[:10])
    assert {done.job_id for done in second} == set(ids[10:20])
    assert all(
        ids[index] == job_id and outcome.answer
        for index, job_id, outcome in first + second
        if isinstance(outcome, Outcome)
    )
    assert list(late.value.job_ids) == ids[20:]


def test_a_batch_of_any_length_is_submitted_and_awaited_together(
    producer: Producer, settings: Settings, store: redis.Redis
) -> None:
    def some() -> Iterator[dict[str, Any]]:
        for number, body in enumerate(bodies(3000)):
            yield {} if number % 1000 == 7 else body
        raise OSError("the file ends here")

    ending = threading.Thread(target=end_jobs, args=(settings, 2997))
    ending.start()
    completed: set[int] = set()
    refused: set[int] = set()
    connections = 0

    def follow() -> None:
        nonlocal connections
        for index, _, outcome in producer.as_completed(producer.submit_each(some()), timeout_s=60):
            (refused if isinstance(outcome, RequestError) else completed).add(index)
            connections = max(connections, len(store.client_list()))

    with pytest.raises(OSError, match="the file ends here"):
        follow()
    ending.join()

    assert refused == {7, 1007, 2007}
    assert completed == set(range(3000)) - refused
    assert connections < 12


def test_outcomes_of_an_outage_are_heard_after_it(own_valkey: OwnValkey) -> None:
    settings = make_settings(own_valkey.url)

    def come_back() -> None:
        own_valkey.start()
        end_jobs(settings, 15)

    with Producer(settings) as producer:
        ids = [str(job_id) for job_id in producer.submit_many(bodies(20))]
        completed = producer.as_completed(ids, timeout_s=60)
        end_jobs(settings, 5)
        first = list(itertools.islice(completed, 5))
        own_valkey.kill()
        back = threading.Timer(3, come_back)
        back.start()
        others = list(completed)
        back.join()

    assert {job_id for _, job_id, _ in first + others} == set(ids)


def test_calls_may_be_made_while_outcomes_come(producer: Producer, settings: Settings) -> None:
    ids = [str(job_id) for job_id in producer.submit_many(bodies(20))]
    end_jobs(settings, 1)
    completed = producer.as_completed(ids, timeout_s=20)
    next(completed)
    ending = threading.Thread(target=end_jobs, args=(settings, 20))
    ending.start()

    mine = producer.run(BODY, lane=Lane.BATCH, timeout_s=20)
    rest = list(completed)
    ending.join()

    assert mine.answer
    assert {job_id for _, job_id, _ in rest} == set(ids[1:])


def test_a_job_of_a_producer_may_name_a_webhook(producer: Producer, store: redis.Redis) -> None:
    secret = "whsec_" + "A" * 44
    headers = {"X-Webhook-Url": "https://x.example/hooks", "X-Webhook-Secret": secret}
    (named,) = producer.submit_many([BODY], headers=headers)
    plain = producer.submit(BODY)
    with pytest.raises(RequestError, match="X-Webhook-Secret must be whsec_"):
        producer.submit(BODY, headers={"X-Webhook-Url": "https://x.example/hooks"})

    hook = json.loads(store.hget(f"rq:job:{named}", "hook") or b"")
    assert hook == {"url": "https://x.example/hooks", "secret": secret}
    assert store.hget(f"rq:job:{plain}", "hook") is None
