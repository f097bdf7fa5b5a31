"""Jobs for sets of tiers, and those whose clients consent to a lower one: a real Valkey, the shipped settings."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
import redis
import uuid_utils

from bitladder.contract import Claimed, Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.queue.calls.end import RequeueReason
from bitladder.queue.claim_plan import claim_plan, shifted_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.queue_list import read_queues
from bitladder.queue.load_sample import take_sample
from bitladder.queue.server.connection import connect
from bitladder.queue_name import QueueName
from bitladder.settings.sections import Settings

LADDER = ("int4", "int8", "fp8")
GAP = ("int4", "fp8")
ALL = LADDER


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def submit(
    queue: JobQueue, tier: str, serving: tuple[str, ...] | None = None, *, lane: str = "normal", count: int = 1
) -> str:
    """Submit jobs that these tiers may serve, all from `tier` on where none are named; return their queue."""
    serving = serving or LADDER[LADDER.index(tier) :]
    name = str(QueueName.of("smollm2", tier, lane, serving, LADDER))
    request = Request(body=msgspec.Raw(b'{"prompt":"x"}'), decision=Decision(floor=tier))
    jobs = [
        Submission(job_id=str(uuid_utils.uuid7()), model="smollm2", queue=name, request=request) for _ in range(count)
    ]
    assert all(isinstance(answer, str) for answer in await queue.submit(jobs))
    return name


async def claim(queue: JobQueue, tier: str, slots: int = 200) -> list[Claimed]:
    plan = claim_plan(queue.settings, "smollm2", tier)
    return (await queue.claim(f"w-{tier}", "smollm2", tier, plan, slots)).jobs


def be_live(store: redis.Redis, *tiers: str) -> None:
    for tier in tiers:
        store.zadd(f"bl:live:smollm2:{tier}", {"somebody": 9e15})


async def test_a_tier_in_a_gap_never_serves_even_where_no_other_is_alive(queue: JobQueue, store: redis.Redis) -> None:
    name = await submit(queue, "int4", GAP)

    assert await claim(queue, "int8") == []
    be_live(store, "int4")
    assert await claim(queue, "fp8") == []  # int4 is alive and not full
    store.delete("bl:live:smollm2:int4")
    assert [job.queue for job in await claim(queue, "fp8")] == [name]


async def test_a_set_overflows_with_its_lane_beyond_the_gap(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, *LADDER)
    await submit(queue, "int4", GAP, count=50)
    await submit(queue, "int4", count=20)

    taken = await claim(queue, "fp8")

    assert len(taken) == 70 - 16  # down to the low mark, counted over all lists of the lane
    assert {job.queue for job in taken} == {"smollm2:int4:normal", "smollm2:int4:normal:only-int4,fp8"}


async def test_without_consent_nothing_is_served_below_its_floor_however_long_it_waits(
    queue: JobQueue, store: redis.Redis
) -> None:
    await submit(queue, "fp8", count=100)
    await submit(queue, "int8", count=100)

    assert await claim(queue, "int4") == []
    be_live(store, *LADDER)
    assert await claim(queue, "int4") == []


async def test_with_consent_a_lower_tier_serves_what_is_above_the_low_mark_of_a_full_one(
    queue: JobQueue, store: redis.Redis
) -> None:
    be_live(store, *LADDER)
    name = await submit(queue, "fp8", ALL, count=30)

    assert await claim(queue, "int4") == []  # fp8 has room: 30 wait, and its high mark is 64
    await submit(queue, "fp8", count=40)
    taken = await claim(queue, "int4")

    assert {job.queue for job in taken} == {name}
    assert len(taken) == 30
    assert [job.tier for job in taken[:1]] == ["fp8"]


async def test_with_consent_a_dead_tier_s_jobs_are_served_below_at_once(queue: JobQueue, store: redis.Redis) -> None:
    be_live(store, "int4")
    await submit(queue, "fp8", ALL, count=2)

    assert len(await claim(queue, "int4")) == 2


async def test_consent_waits_until_the_tiers_above_the_floor_have_left_the_jobs_too(
    queue: JobQueue, store: redis.Redis
) -> None:
    be_live(store, *LADDER)
    await submit(queue, "int8", ALL, count=70)

    assert await claim(queue, "int4") == []  # int8 overflows just now, and fp8 may have room
    store.set("bl:overflow:smollm2:int8:normal", "1")  # it has overflowed for long: fp8 is full
    assert len(await claim(queue, "int4")) == 70 - 16


async def test_a_ceiling_in_the_set_holds_and_a_job_that_failed_below_comes_back_at_its_floor(
    queue: JobQueue, store: redis.Redis
) -> None:
    be_live(store, "int4")
    name = await submit(queue, "int8", ("int4", "int8"))

    assert await claim(queue, "fp8") == []
    (job,) = await claim(queue, "int4")
    last = Outcome(state=State.FAILED, status=502, code="engine_fault")
    assert await queue.requeue("w-int4", job, name, reason=RequeueReason.CHARGED, last=last) == "returned"
    assert [again.attempt for again in await claim(queue, "int8")] == [2]


async def test_lists_of_sets_are_seen_while_they_are_in_use_and_then_forgotten(
    queue: JobQueue, store: redis.Redis
) -> None:
    name = await submit(queue, "int4", GAP, count=3)
    listed = await read_queues(queue)
    sample = await take_sample(queue.client, queue.settings)

    assert {depth.queue: depth.depth for depth in listed.data[0].tiers[0].queues}[name] == 3
    assert sample.models["smollm2"].lists[name].depth == 3
    assert store.sismember("rq:queues", f"rq:queue:{name}")  # rq info shows it
    await claim(queue, "int4")
    await claim(queue, "int4")
    assert store.exists("bl:lists:smollm2") == 0
    assert (await read_queues(queue)).unknown == []


async def test_an_idle_higher_tier_helps_the_batch_lane_at_once_and_no_other(
    queue: JobQueue, store: redis.Redis
) -> None:
    be_live(store, *LADDER)
    await submit(queue, "int4", lane="batch", count=20)
    await submit(queue, "int4", lane="normal", count=20)

    assert [job.lane for job in await claim(queue, "fp8", 8)] == ["batch"] * 8
    await submit(queue, "int8", count=10)
    assert [job.tier for job in await claim(queue, "int8", 10)] == ["int8"] * 10  # its own first


async def test_a_tier_that_is_eager_takes_any_lane_but_leaves_its_reserve_free(
    queue: JobQueue, store: redis.Redis
) -> None:
    be_live(store, *LADDER)
    model = queue.settings.model("smollm2")
    *lower, top = model.tiers
    tiers = (*lower, top.model_copy(update={"eager": True, "reserve": 3}))
    plan = claim_plan(
        queue.settings.model_copy(update={"models": {"smollm2": model.model_copy(update={"tiers": tiers})}}),
        "smollm2",
        "fp8",
    )
    await submit(queue, "int4", count=20)

    taken = [(await queue.claim("w", "smollm2", "fp8", plan, slots)).jobs for slots in (8, 3)]

    assert [len(jobs) for jobs in taken] == [5, 0]
    await submit(queue, "fp8", count=8)
    assert len((await queue.claim("w", "smollm2", "fp8", plan, 8)).jobs) == 8


@pytest.mark.parametrize(("serving", "taken"), [(("int8", "fp8"), 0), (("int8",), 2)])
async def test_a_tier_whose_traffic_is_shifted_keeps_the_sets_that_no_serving_tier_may_take(
    queue: JobQueue, store: redis.Redis, serving: tuple[str, ...], taken: int
) -> None:
    be_live(store, *LADDER)
    await submit(queue, "int4", GAP, count=2)
    plan = shifted_plan(claim_plan(queue.settings, "smollm2", "int4"), "smollm2", LADDER, serving)

    assert len((await queue.claim("w", "smollm2", "int4", plan, 8)).jobs) == taken


async def test_an_odd_name_among_the_lists_of_sets_stops_no_claim(queue: JobQueue, store: redis.Redis) -> None:
    odd = ["smollm2:fp8:normal:only-int4", "smollm2:int4:normal:only-", ":::only-int4", "only-int4", "", "x"]
    store.sadd("bl:lists:smollm2", *odd)
    for name in odd:
        store.rpush(f"rq:queue:{name}", "x")
    name = await submit(queue, "int4", GAP)

    assert [job.queue for tier in LADDER for job in await claim(queue, tier)] == [name]


async def test_a_list_of_a_tier_that_a_worker_does_not_know_yet_stays_noted_while_tenants_wait_in_it(
    queue: JobQueue, store: redis.Redis
) -> None:
    name = "smollm2:fp2:normal:only-fp2,int8"  # of a ladder that other workers have already
    store.sadd("bl:lists:smollm2", name)
    store.hset("bl:tenants:smollm2:fp2", name, 1)

    await claim(queue, "int4")

    assert store.sismember("bl:lists:smollm2", name)
