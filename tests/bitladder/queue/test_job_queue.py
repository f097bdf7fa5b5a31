"""bitladder/queue: each transition on a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
import redis
import uuid_utils

from bitladder.contract import Chunk, Claimed, Emitted, Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.errors import BitladderError, ConflictError, QueueFullError, QueueUnreachableError, QuotaError
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.calls.leases import reap_call
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import MAX_BYTES
from bitladder.queue.server.connection import connect
from bitladder.queue_name import QueueName
from bitladder.settings.sections import Settings
from tests.conftest import OwnValkey, make_settings, wait_until

DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))


def job(tier: str = "int4", lane: str = "normal", ceiling: str | None = None, **fields: str | int) -> Submission:
    request = Request(
        body=msgspec.Raw(b'{"prompt":"x"}'), decision=Decision(floor=tier), ceiling=ceiling, request_id="t"
    )
    queue = str(QueueName("smollm2", tier, lane, ceiling))
    return Submission(job_id=str(uuid_utils.uuid7()), model="smollm2", queue=queue, request=request, **fields)  # type: ignore[arg-type]  # the test's choice


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def submit(queue: JobQueue, *jobs: Submission) -> list[str | BitladderError]:
    return await queue.submit(jobs)


async def claim(queue: JobQueue, tier: str, slots: int = 100, worker: str | None = None) -> list[Claimed]:
    plan = claim_plan(queue.settings, "smollm2", tier)
    return (await queue.claim(worker or f"w-{tier}", "smollm2", tier, plan, slots)).jobs


def be_live(store: redis.Redis, *tiers: str) -> None:
    for tier in tiers:
        store.zadd(f"bl:live:smollm2:{tier}", {"somebody": 9e15})


async def test_a_job_is_claimed_once_and_its_outcome_can_be_read(queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)

    first, second = await claim(queue, "int4"), await claim(queue, "int4", worker="other")
    accepted = await queue.finish("w-int4", [Finished(job=first[0], outcome=DONE)])
    view = await queue.view(mine.job_id)

    assert [claimed.job_id for claimed in first] == [mine.job_id]
    assert second == []
    assert accepted == [True]
    assert view is not None
    assert view.state is State.FINISHED
    assert view.outcome is not None
    assert view.outcome.answer == b'{"ok":true}'


def sized(size: int, **fields: str) -> Submission:
    """Return a job whose prompt has so many bytes."""
    mine = job(**fields)
    body = msgspec.Raw(b'{"prompt":"%s"}' % (b"x" * size))
    return msgspec.structs.replace(mine, request=msgspec.structs.replace(mine.request, body=body))


async def test_a_claim_stops_at_its_bytes_and_leaves_the_rest_in_its_place(queue: JobQueue, store: redis.Redis) -> None:
    small, large = 1000, MAX_BYTES * 2 // 5
    sizes = [large, small, large, large, small, 3 * MAX_BYTES, small]
    jobs = [sized(size) for size in sizes]
    ids = [mine.job_id for mine in jobs]
    await submit(queue, *jobs)
    waiting = []
    claimed = []

    for _ in range(4):
        waiting.append(sum(its.depth for its in (await queue.depths("smollm2")).queues))
        view = await queue.view(ids[-1])
        waiting.append((view.position or 0) if view else 0)
        claimed.append([job.job_id for job in await claim(queue, "int4")])

    # Two and a small one; two; the one that fits nowhere, alone; the rest.
    assert claimed == [ids[:3], ids[3:5], ids[5:6], ids[6:]]
    assert waiting == [7, 7, 4, 4, 2, 2, 1, 1]
    assert [store.hget(f"rq:job:{job_id}", "status") for job_id in ids] == [b"started"] * 7
    assert store.exists("rq:queue:smollm2:int4:normal", "bl:counts:smollm2:int4:normal") == 0


async def test_a_claim_that_was_cut_short_says_so_and_brings_no_other_lane_s_jobs_before(queue: JobQueue) -> None:
    more_than_half = MAX_BYTES // 2 + 1
    await submit(queue, *(sized(more_than_half, lane="urgent") for _ in range(2)), job(lane="normal"))
    plan = claim_plan(queue.settings, "smollm2", "int4")

    answers = [await queue.claim("w", "smollm2", "int4", plan, 100) for _ in range(3)]

    assert [len(answer.jobs) for answer in answers] == [1, 2, 0]
    assert [answer.is_cut for answer in answers] == [True, False, False]
    assert answers[1].jobs[0].queue == "smollm2:int4:urgent"


async def test_a_worker_that_lost_its_lease_cannot_finish(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, job())
    stale = (await claim(queue, "int4"))[0]
    await queue.requeue("w-int4", stale, stale.queue, reason=RequeueReason.CHARGED, last=DONE)
    fresh = (await claim(queue, "int4", worker="other"))[0]

    late, right = (
        await queue.finish("w-int4", [Finished(job=stale, outcome=DONE)]),
        await queue.finish("other", [Finished(job=fresh, outcome=DONE)]),
    )

    assert (late, right, fresh.attempt) == ([False], [True], 2)
    assert store.smembers("bl:inflight:w-int4") == store.smembers("bl:inflight:other") == set()


async def test_a_late_answer_leaves_a_job_to_the_worker_that_claimed_it_again(
    queue: JobQueue, store: redis.Redis
) -> None:
    await submit(queue, job())
    stale = (await claim(queue, "int4"))[0]
    await queue.requeue("w-int4", stale, stale.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    fresh = (await claim(queue, "int4"))[0]

    # The answers to the first claim come again: the connection broke before they were acknowledged.
    word = await queue.requeue("w-int4", stale, stale.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    accepted = await queue.finish("w-int4", [Finished(job=stale, outcome=DONE)])

    assert (word, accepted) == ("lost", [False])
    assert store.smembers("bl:inflight:w-int4") == {fresh.job_id.encode()}


async def lose(queue: JobQueue, store: redis.Redis, worker: str) -> None:
    """Let a worker's lease run out, and reap it."""
    store.zadd("bl:workers", {worker: 1})
    await queue.run(reap_call(queue.settings))


async def test_a_worker_that_is_lost_costs_those_jobs_an_attempt_that_its_engine_had_begun(
    queue: JobQueue, store: redis.Redis
) -> None:
    await submit(queue, *(job() for _ in range(6)))
    held = [claimed.job_id for claimed in await claim(queue, "int4", worker="lost")]

    await queue.mark_begun("lost", held[:2])
    await lose(queue, store, "lost")
    again = {claimed.job_id: claimed.attempt for claimed in await claim(queue, "int4")}

    assert again == {job_id: 2 if job_id in held[:2] else 1 for job_id in held}
    assert store.keys("bl:*:lost") == []


async def test_a_job_that_its_lost_worker_ends_nevertheless_has_had_its_attempt(
    queue: JobQueue, store: redis.Redis
) -> None:
    await submit(queue, job())
    (claimed,) = await claim(queue, "int4", worker="late")
    await lose(queue, store, "late")  # it had not said yet that its engine has begun
    before = await queue.view(claimed.job_id)

    accepted = await queue.finish("late", [Finished(job=claimed, outcome=DONE)])
    view = await queue.view(claimed.job_id)

    assert accepted == [True]
    assert before is not None
    assert view is not None
    assert (before.attempts, view.attempts) == (0, 1)


async def test_a_job_that_ends_every_worker_before_its_engine_begins_is_given_up(
    queue: JobQueue, store: redis.Redis
) -> None:
    mine = job()
    await submit(queue, mine)

    attempts = []
    while claimed := await claim(queue, "int4", worker="lost"):
        attempts.append(claimed[0].attempt)
        await lose(queue, store, "lost")
    view = await queue.view(mine.job_id)

    assert attempts == [1, 1, 1, 1, 2, 3]
    assert view is not None
    assert view.outcome is not None
    assert (view.outcome.code, view.attempts) == ("worker_lost", 3)


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (RequeueReason.EXPIRED, State.EXPIRED),
        (RequeueReason.CANCELLED, State.CANCELLED),
        (RequeueReason.REFUSED, State.FAILED),
    ],
)
async def test_a_claim_that_is_void_ends_its_job_without_an_attempt(
    queue: JobQueue, store: redis.Redis, reason: RequeueReason, state: State
) -> None:
    await submit(queue, job())
    (claimed,) = await claim(queue, "int4")
    end = Outcome(state=state, status=504)

    words = [await queue.requeue("w-int4", claimed, claimed.queue, reason=reason, last=end) for _ in range(2)]
    view = await queue.view(claimed.job_id)

    assert words == ["ended", "lost"]
    assert view is not None
    assert (view.outcome, view.attempts) == (end, 0)
    assert store.exists("bl:dead_letters") == (reason is RequeueReason.REFUSED)
    assert store.keys("rq:wip:*") + store.keys("bl:inflight:*") == []


async def test_a_full_queue_knows_the_jobs_that_it_has(redis_url: str, store: redis.Redis) -> None:
    del store
    settings = make_settings(redis_url, queue__max_depth=1)
    queue, mine = JobQueue(connect(settings.redis), settings), job()

    first, again, other = await submit(queue, mine), await submit(queue, mine), await submit(queue, job())
    await queue.client.aclose()

    assert first == again == [mine.job_id]
    assert isinstance(other[0], QueueFullError)


async def test_a_cancelled_job_does_not_keep_the_next_from_overflowing(queue: JobQueue) -> None:
    gone, mine = job(), job()
    await submit(queue, gone, mine)
    await queue.cancel(gone.job_id)

    assert [claimed.job_id for claimed in await claim(queue, "int8", 1)] == [mine.job_id]


async def test_the_last_attempt_ends_the_job(queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    failed = Outcome(state=State.FAILED, status=502, code="engine_fault", error="broke")

    words = []
    for _ in range(3):
        claimed = (await claim(queue, "int4"))[0]
        words.append(await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.CHARGED, last=failed))
    view = await queue.view(mine.job_id)

    assert words == ["returned", "returned", "ended"]
    assert view is not None
    assert view.state is State.FAILED


async def test_an_uncharged_return_costs_no_attempt(queue: JobQueue) -> None:
    await submit(queue, job())

    for _ in range(5):
        claimed = (await claim(queue, "int4"))[0]
        assert claimed.attempt == 1
        assert (
            await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.UNCHARGED, last=DONE)
            == "returned"
        )


async def test_lanes_are_served_in_order_but_none_starves(queue: JobQueue) -> None:
    await submit(queue, *(job(lane=lane) for lane in ("batch", "normal", "urgent") for _ in range(20)))

    lanes = [claimed.lane for claimed in await claim(queue, "int4", 20)]

    assert lanes[:7] == ["urgent"] * 7
    assert lanes[7] == "normal"
    assert lanes[15] == "batch"


async def test_lower_lanes_keep_their_share_however_long_the_urgent_one_is_full(queue: JobQueue) -> None:
    await submit(queue, *(job(lane=lane) for lane in ("urgent", "normal", "batch") for _ in range(64)))

    served: list[str] = []
    for _ in range(60):
        lanes = [claimed.lane for claimed in await claim(queue, "int4", 7)]
        served += lanes
        await submit(queue, *(job(lane="urgent") for lane in lanes if lane == "urgent"))

    # Of sixteen turns one each, whatever the sizes of the claims are.
    assert served.count("normal") == pytest.approx(420 / 16, abs=2)
    assert served.count("batch") == pytest.approx(420 / 16, abs=2)


async def test_a_flooded_tier_takes_nothing_from_the_workers_of_another(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, "int4", "int8", "fp8")
    await submit(queue, *(job("fp8") for _ in range(1000)), *(job("int4") for _ in range(20)))

    above = [claimed.tier for claimed in await claim(queue, "fp8", 100)]
    own = [claimed.tier for claimed in await claim(queue, "int4", 100)]

    assert (above, own) == (["fp8"] * 100, ["int4"] * 20)


async def test_overflow_is_taken_above_the_high_mark_until_the_low_mark(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, "int4", "int8")
    await submit(queue, *(job() for _ in range(64)))
    assert await claim(queue, "int8") == []

    await submit(queue, job())
    taken = await claim(queue, "int8")

    assert len(taken) == 65 - 16
    assert await claim(queue, "int8") == []


async def test_a_ceiling_and_a_floor_hold_whatever_the_load(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, *(job(ceiling="int4") for _ in range(200)), *(job("fp8") for _ in range(3)))

    assert await claim(queue, "int8", 500) == []
    assert [claimed.tier for claimed in await claim(queue, "fp8", 500)] == ["fp8"] * 3
    assert len(await claim(queue, "int4", 500)) == 200


async def test_a_tier_without_a_live_worker_drains_upward(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, job())

    assert len(await claim(queue, "fp8")) == 1


async def test_a_cancelled_job_never_runs_and_does_not_count(queue: JobQueue) -> None:
    first, second = job(), job()
    await submit(queue, first, second)

    word = await queue.cancel(first.job_id)
    depths = await queue.depths("smollm2")
    claimed = await claim(queue, "int4")

    assert word == "cancelled"
    assert sum(row.depth for row in depths.queues) == 1
    assert [job.job_id for job in claimed] == [second.job_id]
    assert await queue.cancel(first.job_id) == "over"
    assert await queue.cancel("nobody") == "missing"


async def test_a_job_past_its_deadline_is_dropped_and_says_so(queue: JobQueue) -> None:
    mine = job(deadline_ms=1)
    await submit(queue, mine)
    await asyncio.sleep(0.01)  # the server's clock has to move

    claimed = await claim(queue, "int4")
    view = await queue.view(mine.job_id)

    assert claimed == []
    assert view is not None
    assert view.state is State.EXPIRED


async def test_only_a_waiting_job_whose_deadline_has_passed_is_ended_by_its_client(queue: JobQueue) -> None:
    late, early, running = job(deadline_ms=1), job(deadline_ms=60_000), job(deadline_ms=60_000)
    await submit(queue, running)
    await claim(queue, "int4")
    await submit(queue, late, early)
    await asyncio.sleep(0.01)  # the server's clock has to move

    ended = [await queue.expire(job.job_id) for job in (late, early, running, late)]
    views = [await queue.view(job.job_id) for job in (late, early, running)]
    depths = await queue.depths("smollm2")

    assert ended == [True, False, False, False]
    assert [view.state for view in views if view] == [State.EXPIRED, State.QUEUED, State.RUNNING]
    assert sum(row.depth for row in depths.queues) == 1


async def test_an_idempotency_key_gives_the_first_job_or_a_conflict(queue: JobQueue) -> None:
    first = job(idempotency_key="k", fingerprint="a")

    answers = await submit(
        queue, first, job(idempotency_key="k", fingerprint="a"), job(idempotency_key="k", fingerprint="b")
    )

    assert answers[:2] == [first.job_id, first.job_id]
    assert isinstance(answers[2], ConflictError)


async def test_a_full_queue_refuses(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__max_depth=1)
    client = connect(settings.redis)

    answers = await JobQueue(client, settings).submit([job(), job()])
    await client.aclose()

    assert isinstance(answers[1], QueueFullError)


def of(tenant: str, most: int = 0) -> Submission:
    mine = job(max_of_tenant=most)
    return msgspec.structs.replace(mine, request=msgspec.structs.replace(mine.request, tenant=tenant))


async def test_a_tenant_has_its_most_jobs_until_some_of_them_are_over(queue: JobQueue, store: redis.Redis) -> None:
    first = await submit(queue, *(of("acme", most=2) for _ in range(3)), of("other", most=2))
    (claimed, *_) = await claim(queue, "int4")
    await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE)])
    second = await submit(queue, *(of("acme", most=2) for _ in range(2)))

    assert [isinstance(answer, QuotaError) for answer in first + second] == [False, False, True, False, False, True]
    assert "tenant acme has 2 jobs" in str(first[2])
    assert store.zcard("bl:tenant:acme") == 2
    view = await queue.view(str(first[3]))
    assert view is not None
    assert view.tenant == "other"


async def test_a_tenant_s_excess_waits_in_the_batch_lane_and_keeps_nobody_waiting(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__fair_depth=5)
    client = connect(settings.redis)
    queue = JobQueue(client, settings)
    flood = [of("loud") for _ in range(40)]
    await submit(queue, *flood)
    quiet = of("quiet")
    await submit(queue, quiet)

    lanes = {row.queue: row.depth for row in (await queue.depths("smollm2")).queues}
    served = [claimed.job_id for claimed in await claim(queue, "int4", 6)]
    await client.aclose()

    assert (lanes["smollm2:int4:normal"], lanes["smollm2:int4:batch"]) == (6, 35)
    assert quiet.job_id in served


async def test_nothing_is_left_and_every_key_expires_after_the_work(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, *(job() for _ in range(5)))
    for claimed in await claim(queue, "int4"):
        await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE)])

    permanent = {str(key) for key in store.keys("*") if store.ttl(key) == -1}

    assert permanent == {"b'rq:queues'", "b'bl:workers'", "b'bl:protocol'"}
    assert store.keys("rq:wip:*") == []


@pytest.mark.parametrize("field", ["wait", "fence", "uncharged", "data", "status"])
async def test_a_corrupt_record_costs_nobody_else_their_job(queue: JobQueue, store: redis.Redis, field: str) -> None:
    bad, good = job(), job()
    await submit(queue, bad, good)
    store.hset(f"rq:job:{bad.job_id}", field, "\xff garbage")

    claimed = {job.job_id for job in await claim(queue, "int4")}

    assert good.job_id in claimed
    assert await queue.view(bad.job_id) is not None


async def test_a_record_that_is_not_even_a_hash_is_dropped(queue: JobQueue, store: redis.Redis) -> None:
    good = job()
    store.set("rq:job:odd", "a string")
    store.rpush("rq:queue:smollm2:int4:normal", "odd")
    await submit(queue, good)

    assert [job.job_id for job in await claim(queue, "int4")] == [good.job_id]
    assert (await queue.depths("smollm2")).live["int4"] == 0


async def test_a_queue_that_ran_empty_is_no_longer_over_its_mark(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, "int4", "fp8")
    await submit(queue, *(job() for _ in range(70)))
    assert len(await claim(queue, "fp8", 1)) == 1  # between its marks now
    assert len(await claim(queue, "int4", 100)) == 69

    await submit(queue, *(job() for _ in range(30)))

    assert await claim(queue, "fp8") == []


async def test_only_the_job_that_is_late_overflows(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, "int4")
    punctual, late = job(), job(ceiling="int8", deadline_ms=300)
    await submit(queue, punctual, late)
    await asyncio.sleep(0.2)  # more than half of the deadline, on the server's clock

    claimed = await claim(queue, "int8")

    assert [job.job_id for job in claimed] == [late.job_id]


async def test_a_busy_tier_does_not_starve_a_dead_one_below(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, job(), *(job("int8") for _ in range(30)))

    tiers = [(await claim(queue, "int8", 1))[0].tier for _ in range(8)]

    assert tiers.count("int4") == 1


async def test_a_cancelled_job_that_comes_back_does_not_run_again(queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    claimed = (await claim(queue, "int4"))[0]

    word = await queue.cancel(mine.job_id)
    returned = await queue.requeue("w-int4", claimed, claimed.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    view = await queue.view(mine.job_id)

    assert (word, returned) == ("requested", "ended")
    assert view is not None
    assert view.state is State.CANCELLED
    assert await claim(queue, "int4") == []


async def test_the_key_of_a_cancelled_job_can_be_used_again(queue: JobQueue) -> None:
    first, second = job(idempotency_key="k"), job(idempotency_key="k")
    await submit(queue, first)
    await queue.cancel(first.job_id)

    assert await submit(queue, second) == [second.job_id]


async def test_chunks_are_stored_once_and_read_from_anywhere(queue: JobQueue) -> None:
    mine = job()
    await submit(queue, mine)
    claimed = (await claim(queue, "int4"))[0]
    chunks = [Chunk(fence=claimed.fence, number=number, data=b"%d" % number) for number in (1, 2, 3)]

    first = await queue.emit("w-int4", [(mine.job_id, chunk) for chunk in chunks])
    again = await queue.emit("w-int4", [(mine.job_id, chunks[2])])
    foreign = await queue.emit("other", [(mine.job_id, chunks[0])])

    assert (first, again, foreign) == ([Emitted.STORED] * 3, [Emitted.STORED], [Emitted.LOST])
    assert await queue.chunks(mine.job_id, claimed.fence, 1) == chunks[1:]


async def test_a_chunk_that_there_is_no_room_for_is_neither_told_nor_lost_nor_overtaken(
    queue: JobQueue, store: redis.Redis
) -> None:
    mine, other = job(reply_to="bl:reply:me"), job()
    await submit(queue, mine, other)
    fences = {claimed.job_id: claimed.fence for claimed in await claim(queue, "int4")}
    listener = store.pubsub()  # type: ignore[no-untyped-call]  # redis-py
    listener.subscribe("bl:reply:me")
    listener.get_message(timeout=5)
    chunks = [(mine.job_id, Chunk(fence=fences[mine.job_id], number=number, data=b"x")) for number in (1, 2, 3)]
    await queue.emit("w-int4", chunks[:1])
    told = listener.get_message(timeout=5)

    store.config_set("maxmemory", 1)
    try:
        full = await queue.emit("w-int4", chunks[1:])
    finally:
        store.config_set("maxmemory", 0)
    silent = listener.get_message(timeout=0.2)
    again = await queue.emit("w-int4", chunks[1:])
    listener.close()

    assert told is not None
    assert (full, silent, again) == ([Emitted.NO_ROOM] * 2, None, [Emitted.STORED] * 2)
    assert await queue.chunks(mine.job_id, 0, 0) == [chunk for _, chunk in chunks]


async def test_chunks_for_a_server_that_takes_no_writes_wait_as_while_it_is_unreachable(
    queue: JobQueue, store: redis.Redis
) -> None:
    """A server without room is waited for half a minute; one that a failover left without replicas, for ever."""
    mine = job()
    await submit(queue, mine)
    (claimed,) = await claim(queue, "int4")
    chunks = [(mine.job_id, Chunk(fence=claimed.fence, number=number, data=b"x")) for number in (1, 2)]

    store.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(QueueUnreachableError, match="NOREPLICAS"):
            await queue.emit("w-int4", chunks)
    finally:
        store.config_set("min-replicas-to-write", 0)
    again = await queue.emit("w-int4", chunks)

    assert again == [Emitted.STORED] * 2


async def test_a_key_of_another_type_in_the_place_of_a_stream_or_a_job_stops_no_stream(
    queue: JobQueue, store: redis.Redis
) -> None:
    mine, other = job(), job()
    await submit(queue, mine, other)
    fence = next(job.fence for job in await claim(queue, "int4") if job.job_id == mine.job_id)
    store.set(f"bl:stream:{mine.job_id}", "planted")
    store.delete(f"rq:job:{other.job_id}")
    store.set(f"rq:job:{other.job_id}", "planted")
    chunk = Chunk(fence=fence, number=1, data=b"x")

    became = await queue.emit("w-int4", [(other.job_id, chunk), (mine.job_id, chunk)])

    assert became == [Emitted.LOST, Emitted.STORED]
    assert await queue.chunks(mine.job_id, 0, 0) == [chunk]


async def test_a_server_that_became_a_replica_takes_no_chunks_and_is_left(own_valkey: OwnValkey) -> None:
    settings = make_settings(own_valkey.url)
    queue, mine = JobQueue(connect(settings.redis), settings), job()
    await submit(queue, mine)
    (claimed,) = await claim(queue, "int4")
    with redis.Redis.from_url(own_valkey.url) as server:
        server.replicaof("127.0.0.1", 1)

    with pytest.raises(QueueUnreachableError, match="is a read-only replica"):
        await queue.emit("w-int4", [(mine.job_id, Chunk(fence=claimed.fence, number=1, data=b"x"))])

    await queue.aclose()


async def test_a_full_redis_refuses_jobs_but_ends_those_it_has(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    await submit(queue, mine)
    store.config_set("maxmemory", 1)
    try:
        (refused,) = await submit(queue, job())
        claimed = (await claim(queue, "int4"))[0]
        accepted = await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE)])
    finally:
        store.config_set("maxmemory", 0)

    assert "nothing was accepted, Redis refused: command not allowed when used memory > 'maxmemory'" in str(refused)
    assert type(refused) is QueueUnreachableError
    assert accepted == [True]


@pytest.mark.parametrize("deadline", ["inf", "nan", "1e400", "-inf"])
async def test_a_deadline_that_is_no_number_of_this_world_is_a_day_from_now(
    queue: JobQueue, store: redis.Redis, deadline: str
) -> None:
    mine = job()
    await submit(queue, mine)
    store.hset(f"rq:job:{mine.job_id}", "wait", f"1 {deadline} 1")

    (claimed,) = await claim(queue, "int4")

    assert claimed.deadline_ms == claimed.claimed_ms + 86_400_000


async def test_an_id_that_is_none_is_dropped(queue: JobQueue, store: redis.Redis) -> None:
    store.rpush("rq:queue:smollm2:int4:normal", b"\xff\xfe", "a b", "x" * 500)

    assert await claim(queue, "int4") == []
    assert store.llen("rq:queue:smollm2:int4:normal") == 0


async def test_a_waiting_job_knows_its_place_in_the_list(queue: JobQueue) -> None:
    jobs = [job() for _ in range(12)]
    await submit(queue, *jobs)

    async def places(*which: int) -> list[int | None]:
        views = [await queue.view(jobs[number].job_id) for number in which]
        return [view.position if view else None for view in views]

    at_first = await places(0, 1, 11)
    running = await claim(queue, "int4", 10)
    then = await places(0, 10, 11)
    await queue.requeue("w-int4", running[9], running[9].queue, reason=RequeueReason.UNCHARGED, last=DONE)

    assert at_first == [1, 2, 12]
    assert then == [None, 1, 2]
    assert await places(9, 10, 11) == [1, 2, 3]


async def test_places_have_no_holes_where_jobs_were_cancelled_expired_or_ended_late(
    queue: JobQueue, store: redis.Redis
) -> None:
    jobs = [job(deadline_ms=300 if number == 5 else 60_000) for number in range(8)]
    await submit(queue, *jobs)
    late = (await claim(queue, "int4", 1))[0]
    await queue.requeue("w-int4", late, late.queue, reason=RequeueReason.UNCHARGED, last=DONE)  # to the front again

    async def places() -> list[int | None]:
        return [view.position for job in jobs if (view := await queue.view(job.job_id)) and not view.outcome]

    seen = [await places()]
    await queue.cancel(jobs[2].job_id)
    seen.append(await places())
    await queue.finish("w-int4", [Finished(job=late, outcome=DONE)])
    seen.append(await places())
    await asyncio.sleep(0.31)  # the server's clock has to move
    await queue.expire(jobs[5].job_id)
    seen.append(await places())
    await claim(queue, "int4", 1)  # and the late one's id before it
    seen.append(await places())

    assert seen == [list(range(1, most + 1)) for most in (8, 7, 6, 5)] + [[None, 1, 2, 3, 4]]
    assert store.zcard("bl:gone:smollm2:int4:normal") == 2


async def test_a_job_of_rq_s_that_is_cancelled_leaves_no_hole(queue: JobQueue, store: redis.Redis) -> None:
    store.hset("rq:job:theirs", mapping={"status": "queued", "origin": "smollm2:int4:normal", "data": "[]"})
    store.rpush("rq:queue:smollm2:int4:normal", "theirs")
    mine = job()
    await submit(queue, mine)

    await queue.cancel("theirs")
    view = await queue.view(mine.job_id)

    assert view is not None
    assert view.position == 1


async def test_jobs_of_several_queues_go_in_one_bundle_and_are_answered_in_order(queue: JobQueue) -> None:
    jobs = [job(lane=lane) for _ in range(3) for lane in ("urgent", "normal", "batch")]

    answers = await submit(queue, *jobs, jobs[4])

    assert answers == [job.job_id for job in [*jobs, jobs[4]]]
    assert sum(row.depth for row in (await queue.depths("smollm2")).queues) == 9


async def test_jobs_with_and_without_a_ceiling_are_merged_by_age(queue: JobQueue) -> None:
    jobs = [job(ceiling=ceiling) for _ in range(40) for ceiling in (None, "int8")]
    for submission in jobs:
        await submit(queue, submission)

    claimed = [job.job_id for job in await claim(queue, "int4", 40)]

    # By runs of eight: whoever waits longest is at most a run late.
    assert {job.job_id for job in jobs[:24]} <= set(claimed)
    assert len(set(claimed)) == 40


async def wait_and_claim(queue: JobQueue, tier: str = "int4") -> list[Claimed]:
    waiter, plan = connect(queue.settings.redis, wait_s=5), claim_plan(queue.settings, "smollm2", tier)
    try:
        return (await queue.claim_when_pushed(waiter, f"w-{tier}", "smollm2", tier, plan, 100)).jobs
    finally:
        await waiter.aclose()


async def test_a_waiting_claim_gets_what_is_pushed(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    waiting = asyncio.create_task(wait_and_claim(queue))
    await asyncio.to_thread(wait_until, lambda: bool(store.info("clients")["blocked_clients"]), "the claim waits")

    await submit(queue, mine)

    assert [job.job_id for job in await waiting] == [mine.job_id]


async def test_a_waiting_claim_looks_when_nobody_has_pushed_anything(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    await submit(queue, mine)
    store.delete("bl:wake:smollm2:int4")  # as after a push by RQ's own producer

    assert [job.job_id for job in await wait_and_claim(queue)] == [mine.job_id]


async def test_a_waiting_claim_loads_a_script_that_the_server_forgot(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    await submit(queue, mine)
    store.script_flush()

    assert [job.job_id for job in await wait_and_claim(queue)] == [mine.job_id]


async def test_a_claim_that_took_overflow_is_followed_by_another_look(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, "int4")
    await submit(queue, *(job(deadline_ms=200) for _ in range(2)))
    await asyncio.sleep(0.12)  # more than half of the deadline, on the server's clock

    assert len(await claim(queue, "int8")) == 1
    assert store.llen("bl:wake:smollm2:int8") == 1


async def test_a_call_that_is_cancelled_on_its_way_leaves_no_answer_for_the_next_one(queue: JobQueue) -> None:
    jobs = [job() for _ in range(20)]
    await submit(queue, *jobs)

    for number in range(200):
        asked = asyncio.create_task(queue.depths("smollm2"))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        view = await queue.view(jobs[number % 20].job_id)
        assert view is not None
        assert view.position == number % 20 + 1


async def test_what_is_over_is_gone_after_its_time(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__result_ttl_s=1)
    client = connect(settings.redis)
    queue = JobQueue(client, settings)
    ids = await submit(queue, *(job() for _ in range(50)))
    ends = [Finished(job=claimed, outcome=DONE) for claimed in await claim(queue, "int4")]
    await queue.finish("w-int4", ends)
    registry = "rq:finished:smollm2:int4:normal"
    before = store.zcard(registry)

    wait_until(lambda: store.keys("rq:job:*") == [], "every record is gone")
    wait_until(lambda: store.zcount(registry, "-inf", int(time.time()) - 1) == 50, "their entries are old")
    await submit(queue, *(job() for _ in range(25)))
    await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE) for claimed in await claim(queue, "int4")])
    await client.aclose()

    assert (len(ids), before) == (50, 50)
    assert store.zcard(registry) == 25  # twice as many old entries go as new ones come
