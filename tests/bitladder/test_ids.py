"""Job ids that nobody expects: each goes through Redis, messages, URLs and codes as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis
from pydantic import SecretStr

from bitladder.contract import Claimed, Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.ids import from_url, id_bytes, in_url, in_word, read_id, read_word, readable
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.dead_letters import Choice, DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue.signing import Signer
from bitladder.queue.waiting.outcomes import unpack_message
from bitladder.rq_call import encode_call
from bitladder.settings.sections import Settings

QUEUE = "smollm2:int4:normal"
DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))
ODD = [
    b"order:17",
    b"tenant.order.17",
    b"two words",
    b" ",
    b"line\nbreak\r\n",
    "žluťoučký-кот-😀".encode(),
    b"x" * 512,
    b"\xff\xfe\x00",
    b"100%",
    b"%3A:%",
    b"a/b/../c?d#e",
    b"..",
    b"{id}[1]*",
]


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


def plant(store: redis.Redis, job_id: bytes, **fields: str | bytes) -> str:
    """Write a job as a producer beside Redis would."""
    data = encode_call(Request(body=msgspec.Raw(b'{"prompt":"x"}')))
    store.hset(b"rq:job:" + job_id, mapping={"status": "queued", "origin": QUEUE, "data": data} | fields)  # type: ignore[arg-type]  # redis-py names text only
    store.rpush(f"rq:queue:{QUEUE}", job_id)
    return read_id(job_id)


async def claim(queue: JobQueue, worker: str = "w") -> list[Claimed]:
    return (await queue.claim(worker, "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 100)).jobs


@pytest.mark.parametrize("raw", ODD)
def test_an_id_comes_back_from_every_form_that_it_takes(raw: bytes) -> None:
    job_id = read_id(raw)

    assert id_bytes(job_id) == raw
    assert read_word(in_word(job_id)) == job_id
    assert b" " not in in_word(job_id)
    assert b"\n" not in in_word(job_id)
    assert from_url(in_url(job_id)) == job_id
    assert "/" not in in_url(job_id)
    assert in_url(job_id).isascii()
    assert readable(job_id).encode()


def test_an_id_of_ours_looks_the_same_everywhere() -> None:
    job_id = "01890000-0000-7000-8000-000000000000"

    assert (in_word(job_id).decode(), in_url(job_id), readable(job_id)) == (job_id, job_id, job_id)


@pytest.mark.parametrize("raw", ODD)
async def test_a_job_with_any_id_is_claimed_requeued_and_finished(
    queue: JobQueue, store: redis.Redis, raw: bytes
) -> None:
    job_id = plant(store, raw)

    (first,) = await claim(queue)
    await queue.requeue("w", first, first.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    (second,) = await claim(queue)
    running: Any = store.zrange(f"rq:wip:{QUEUE}", 0, -1)
    accepted = await queue.finish("w", [Finished(job=second, outcome=DONE)])
    view = await queue.view(job_id)

    assert [job.job_id for job in (first, second)] == [job_id, job_id]
    assert running[0].count(b":") == 1  # RQ's tools split it there
    assert accepted == [True]
    assert view is not None
    assert view.outcome is not None
    assert store.zrange(f"rq:finished:{QUEUE}", 0, -1) == [raw]
    assert store.keys("bl:inflight:*") + store.keys("rq:wip:*") == []


@pytest.mark.parametrize("raw", ODD)
async def test_a_job_with_any_id_is_cancelled_while_it_waits_and_while_it_runs(
    queue: JobQueue, store: redis.Redis, raw: bytes
) -> None:
    waits, runs = plant(store, raw), plant(store, raw[:-1] + b"2")
    await queue.cancel(waits)
    claimed = await claim(queue)
    word = await queue.cancel(runs)
    view = await queue.view(waits)

    assert [job.job_id for job in claimed] == [runs]
    assert word == "requested"
    assert store.smembers("bl:cancel:w") == {raw[:-1] + b"2"}
    assert view is not None
    assert view.state is State.CANCELLED


@pytest.mark.parametrize("raw", ODD)
async def test_an_outcome_reaches_whoever_awaits_it_whatever_the_id(
    queue: JobQueue, store: redis.Redis, raw: bytes
) -> None:
    with store.pubsub() as messages:  # type: ignore[no-untyped-call]  # redis-py
        messages.subscribe("bl:reply:me")
        assert messages.get_message(timeout=5)
        for job_id in (raw, b"plain"):
            plant(store, job_id, reply="bl:reply:me")
        await queue.finish("w", [Finished(job=job, outcome=DONE) for job in await claim(queue)])
        message = messages.get_message(timeout=5)

    assert message
    items = [(kind, job_id) for kind, job_id, _, _, _ in unpack_message(message["data"])]
    assert items == [(b"d", read_id(raw)), (b"d", "plain")]


@pytest.mark.parametrize("raw", ODD)
async def test_a_job_with_any_id_is_found_in_dead_letters_and_dropped(
    queue: JobQueue, store: redis.Redis, raw: bytes
) -> None:
    job_id = plant(store, raw, status="nonsense")
    assert await claim(queue) == []

    dead_letters = DeadLetters(queue)
    found = await dead_letters.jobs(Choice(ids=[readable(job_id)]))
    dropped = await dead_letters.drop(found)

    assert [(letter.job_id, letter.code) for letter in found] == [(job_id, "corrupt_job")]
    assert dropped == [job_id]


async def test_an_id_beyond_measure_ends_in_dead_letters_with_the_reason(queue: JobQueue, store: redis.Redis) -> None:
    job_id, fine = plant(store, b"x" * 513), plant(store, b"fine")

    claims = await queue.claim("w", "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 10)
    view = await queue.view(job_id)
    (dead,) = await DeadLetters(queue).jobs()

    assert [job.job_id for job in claims.jobs] == [fine]
    assert [(len(refused.job_id), refused.why) for refused in claims.unfit] == [(512, "corrupt_job")]
    assert dead.job_id == job_id
    assert view is not None
    assert view.outcome is not None
    assert view.outcome.error == "a job's id must have at most 512 bytes, got 513"


@pytest.mark.parametrize("command", ["SET {} x", "SADD {} x", "RPUSH {} x", "XADD {} * x x", "ZADD {} 1 x"])
async def test_a_record_that_is_no_hash_ends_in_dead_letters_with_the_reason(
    queue: JobQueue, store: redis.Redis, command: str
) -> None:
    key = "rq:job:odd"
    store.execute_command(*command.format(key).split())  # type: ignore[no-untyped-call]  # redis-py
    store.rpush(f"rq:queue:{QUEUE}", "odd")
    fine = plant(store, b"fine")

    claims = await queue.claim("w", "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 10)
    (dead,) = await DeadLetters(queue).jobs()
    view = await queue.view("odd")
    word = await queue.cancel("odd")

    assert [job.job_id for job in claims.jobs] == [fine]
    assert [(refused.job_id, refused.why) for refused in claims.unfit] == [("odd", "corrupt_job")]
    assert (dead.job_id, dead.code) == ("odd", "corrupt_job")
    assert view is not None
    assert view.outcome is not None
    assert "no hash" in (view.outcome.error or "")
    assert word == "over"
    assert await DeadLetters(queue).drop([dead]) == ["odd"]
    assert store.exists(key)  # it is somebody's


@pytest.mark.parametrize("status", ["", "deferred", "scheduled", "rate_limited", "ready_to_enqueue", "nonsense"])
async def test_a_record_that_does_not_say_that_it_waits_ends_in_dead_letters(
    queue: JobQueue, store: redis.Redis, status: str
) -> None:
    job_id = plant(store, b"odd", status=status)
    if not status:
        store.hdel("rq:job:odd", "status")

    assert await claim(queue) == []
    (dead,) = await DeadLetters(queue).jobs()

    assert (dead.job_id, dead.code) == (job_id, "corrupt_job")
    assert dead.view is not None
    assert dead.view.outcome is not None
    assert "status" in (dead.view.outcome.error or "")


async def test_a_job_that_was_saved_and_pushed_by_hand_runs(queue: JobQueue, store: redis.Redis) -> None:
    job_id = plant(store, b"by-hand", status="created")
    store.hdel("rq:job:by-hand", "origin")

    (claimed,) = await claim(queue)
    word = await queue.requeue("w", claimed, claimed.queue, reason=RequeueReason.UNCHARGED, last=DONE)

    assert (claimed.job_id, word) == (job_id, "returned")
    assert [job.job_id for job in await claim(queue)] == [job_id]


async def test_a_job_without_a_queue_of_its_own_can_be_cancelled(queue: JobQueue, store: redis.Redis) -> None:
    job_id = plant(store, b"by-hand")
    store.hdel("rq:job:by-hand", "origin")

    assert await queue.cancel(job_id) == "cancelled"
    assert await claim(queue) == []


async def test_a_garbled_idempotency_key_is_free(queue: JobQueue, store: redis.Redis) -> None:
    store.set("bl:idem:smollm2:default:k", "one-word")
    store.rpush("bl:idem:smollm2:default:l", "a list")
    request = Request(body=msgspec.Raw(b'{"prompt":"x"}'), decision=Decision(floor="int4"))
    jobs = [
        Submission(
            job_id=f"mine-{key}",
            model="smollm2",
            queue=QUEUE,
            request=request,
            idempotency_key=f"default:{key}",
            fingerprint="f",
        )
        for key in "kl"
    ]

    assert await queue.submit(jobs) == ["mine-k", "mine-l"]
    assert await queue.submit([msgspec.structs.replace(jobs[0], job_id="again")]) == ["mine-k"]


def test_a_code_tells_an_id_from_what_follows_it() -> None:
    signer = Signer([SecretStr("a key of at least 16 characters")])

    code = signer.job_mac("a b", b"c")

    assert signer.is_genuine("a b", b"c", code.encode())
    assert not signer.is_genuine("a", b"b c", code.encode())
    assert not signer.is_genuine("a%20b", b"c", code.encode())
    assert signer.decode("\udcff", signer.encode("\udcff", DONE)) == DONE
