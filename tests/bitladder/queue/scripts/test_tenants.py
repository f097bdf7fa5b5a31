"""Tenants share a lane by weight, on a real Valkey: the scripts themselves, step by step, without workers."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec
import pytest
import pytest_asyncio
import redis
import uuid_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.contract import Claimed, Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.calls.upkeep import release_call, sweep_call
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue_name import QueueName
from bitladder.script_constants import JOBS_PER_TURN
from bitladder.settings.sections import Settings
from tests.conftest import make_settings

DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))
OPEN = "smollm2:int4:normal"
RUN = JOBS_PER_TURN  # what a turn brings at most


def job(tenant: str, *, weight: int = 1, ceiling: str | None = None) -> Submission:
    return Submission(
        job_id=str(uuid_utils.uuid7()),
        model="smollm2",
        queue=str(QueueName("smollm2", "int4", "normal", ceiling)),
        request=Request(body=msgspec.Raw(b'{"prompt":"x"}'), decision=Decision(floor="int4"), tenant=tenant),
        weight=weight,
    )


def jobs(tenant: str, count: int, *, weight: int = 1) -> list[Submission]:
    return [job(tenant, weight=weight) for _ in range(count)]


@pytest.fixture
def plain(redis_url: str, store: redis.Redis) -> Settings:
    del store
    return make_settings(redis_url, queue__fair_depth=0, queue__max_depth=200_000)


@pytest_asyncio.fixture
async def queue(plain: Settings) -> AsyncIterator[JobQueue]:
    client = connect(plain.redis)
    yield JobQueue(client, plain)
    await client.aclose()


async def claim(queue: JobQueue, slots: int) -> list[Claimed]:
    plan = claim_plan(queue.settings, "smollm2", "int4")
    return (await queue.claim("w", "smollm2", "int4", plan, slots)).jobs


async def finish(queue: JobQueue, claimed: Sequence[Claimed]) -> None:
    await queue.finish("w", [Finished(job=each, outcome=DONE) for each in claimed])


class _Shares:
    """One event loop and one queue for all examples of a property."""

    def __init__(self, plain: Settings, store: redis.Redis) -> None:
        self.runner, self.store = asyncio.Runner(), store
        self.queue = JobQueue(self.runner.run(_connected(plain)), plain)

    def serve(self, weights: Sequence[int], backlog: int, sizes: Sequence[int]) -> Iterator[Counter[str]]:
        """Let each tenant have a backlog, and yield what each has got after every claim."""
        self.store.flushdb()
        submitted = [one for name, weight in enumerate(weights) for one in jobs(f"t{name}", backlog, weight=weight)]
        owner = {one.job_id: one.request.tenant for one in submitted}
        self.runner.run(self.queue.submit(submitted))
        served: Counter[str] = Counter()
        for size in sizes:
            served.update(owner[each.job_id] for each in self.runner.run(claim(self.queue, size)))
            yield served


async def _connected(plain: Settings) -> redis.asyncio.Redis:
    return connect(plain.redis)


@pytest.fixture
def shares(plain: Settings, store: redis.Redis) -> Iterator[_Shares]:
    shares = _Shares(plain, store)
    yield shares
    with shares.runner:
        shares.runner.run(shares.queue.client.aclose())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=4), sizes=st.lists(st.integers(1, 20), max_size=8))
def test_tenants_that_wait_get_jobs_by_weight_and_none_is_more_than_a_turn_ahead(
    shares: _Shares, weights: list[int], sizes: list[int]
) -> None:
    for served in shares.serve(weights, 170, sizes):
        got = [served[f"t{name}"] / weight for name, weight in enumerate(weights)]
        turns = [RUN / weight for weight in weights]
        for ahead in range(len(weights)):
            for behind in range(len(weights)):
                assert got[ahead] - got[behind] <= turns[ahead] + turns[behind]


async def test_a_tenant_s_hundred_thousand_jobs_change_nothing_for_another(queue: JobQueue, store: redis.Redis) -> None:
    waits = {}
    for flood in (16, 100_000):
        store.flushdb()
        await queue.submit([*jobs("a", 600), *jobs("b", 600), *jobs("loud", 600 if flood > 600 else 16)])
        if flood > 600:  # what lies so far behind is never looked at, and needs no record here
            for _ in range(10):
                store.rpush(f"rq:queue:{OPEN}:tenant-loud", *(str(uuid_utils.uuid7()) for _ in range(flood // 10)))
            store.hincrby("bl:tenants:smollm2:int4", OPEN, flood)
        waits[flood] = await _waits_of_quiet(queue)

    assert max(waits[100_000]) <= 2 * RUN
    p99 = {flood: sorted(its)[int(len(its) * 0.99)] for flood, its in waits.items()}
    assert p99[100_000] <= 1.1 * p99[16]


async def test_a_tenant_s_flood_changes_nothing_for_another_at_the_settings_that_ship(
    redis_url: str, store: redis.Redis
) -> None:
    client, waits = connect(make_settings(redis_url).redis), {}
    queue = JobQueue(client, make_settings(redis_url))
    for flood in (16, 5_000):
        store.flushdb()
        await queue.submit([*jobs("a", 600), *jobs("b", 600), *jobs("loud", flood)])
        waits[flood] = await _waits_of_quiet(queue)
    await client.aclose()

    p99 = {flood: sorted(ahead)[int(len(ahead) * 0.99)] for flood, ahead in waits.items()}
    assert p99[5_000] <= 1.1 * p99[16]


async def _waits_of_quiet(queue: JobQueue) -> list[int]:
    """Submit a job of a quiet tenant now and then; return how many jobs were started before each."""
    waits, started = [], 0
    for _ in range(40):
        quiet, since = job("quiet"), started
        await queue.submit([quiet])
        while quiet.job_id not in (claimed := [each.job_id for each in await claim(queue, 4)]):
            started += len(claimed)
        waits.append(started + claimed.index(quiet.job_id) - since)
        started += len(claimed)
    return waits


async def test_the_default_tenant_and_rq_s_producers_have_a_share_too(queue: JobQueue, store: redis.Redis) -> None:
    await queue.submit(jobs("loud", 100))
    theirs = Queue(OPEN, connection=store, serializer=JSONSerializer).enqueue("workers.generate", body={"prompt": "x"})
    ours = job("default")
    await queue.submit([ours])

    started = {each.job_id for each in await claim(queue, 2 * RUN)}

    assert {theirs.id, ours.job_id} <= started
    assert len(started) == 2 * RUN


async def test_a_tenant_has_one_share_of_a_lane_in_however_many_queues_its_jobs_wait(queue: JobQueue) -> None:
    many = [job("many", ceiling=ceiling) for ceiling in (None, "int4", "int8") for _ in range(80)]
    await queue.submit([*many, *jobs("one", 120)])

    started: set[str] = set()
    for _ in range(20):
        started.update(each.job_id for each in await claim(queue, 8))

    assert len(started) == 160
    assert abs(len(started & {one.job_id for one in many}) - 80) <= RUN


async def test_a_tenant_that_comes_back_has_saved_up_nothing(queue: JobQueue) -> None:
    await queue.submit(jobs("steady", 200))
    for _ in range(10):
        await claim(queue, 8)
    back = jobs("back", 100)
    await queue.submit(back)

    started = {each.job_id for each in await claim(queue, 64)}

    assert abs(len(started & {one.job_id for one in back}) - 32) <= RUN


async def test_a_tenant_s_list_is_a_queue_to_rq_s_tools_as_long_as_a_job_waits_in_it(
    queue: JobQueue, store: redis.Redis
) -> None:
    mine = jobs("acme", 3)
    await queue.submit(mine)
    name = f"{OPEN}:tenant-acme"
    names = [seen.name for seen in Queue.all(connection=store, serializer=JSONSerializer)]
    ids = Queue(name, connection=store, serializer=JSONSerializer).get_job_ids()
    unknown = (await queue.overview()).unknown

    await finish(queue, await claim(queue, 10))

    assert name in names
    assert ids == [one.job_id for one in mine]
    assert unknown == []
    assert name not in [seen.name for seen in Queue.all(connection=store, serializer=JSONSerializer)]
    assert {str(key) for key in store.keys("*") if store.ttl(key) == -1} == {"b'bl:workers'", "b'bl:protocol'"}


async def test_depth_position_cancelling_and_requeueing_are_right_in_a_tenant_s_list(queue: JobQueue) -> None:
    mine = jobs("acme", 4)
    await queue.submit([*mine, *jobs("other", 2)])
    await queue.cancel(mine[1].job_id)
    (first,) = await claim(queue, 1)
    await queue.requeue("w", first, first.queue, reason=RequeueReason.UNCHARGED, last=DONE)

    positions = [view.position for one in mine if (view := await queue.view(one.job_id))]
    depth = {row.queue: row.depth for row in (await queue.depths("smollm2")).queues}[OPEN]
    started = {each.job_id for each in await claim(queue, 10)}

    assert positions == [1, None, 2, 3]
    assert depth == 5
    assert len(started) == 5
    assert sum(row.depth for row in (await queue.depths("smollm2")).queues) == 0


async def test_a_claim_reads_no_more_where_many_tenants_have_deadlines(queue: JobQueue, store: redis.Redis) -> None:
    many = [msgspec.structs.replace(job(f"t{number}"), deadline_ms=60_000) for number in range(100)]
    await queue.submit([*many, *(msgspec.structs.replace(one, job_id=f"{one.job_id}+") for one in many)])

    assert store.hlen("bl:tenants:smollm2:int4") == 1
    queue.service_ms = 30_000  # all are due
    started = {each.job_id for _ in range(30) for each in await claim(queue, 8)}

    assert len(started) == 200
    assert store.keys("bl:due:*") + store.keys("bl:counts:*") == []


async def depth(queue: JobQueue) -> int:
    return sum(row.depth for row in (await queue.depths("smollm2")).queues)


async def sweep(queue: JobQueue, store: redis.Redis) -> None:
    store.delete("bl:sweep:smollm2")
    await queue.run(sweep_call(queue.settings, "smollm2"))


async def test_ids_whose_records_are_gone_leave_the_depth_right(queue: JobQueue, store: redis.Redis) -> None:
    mine = jobs("acme", 3)
    await queue.submit([*mine, *jobs("other", 5)])
    store.delete(*(f"rq:job:{one.job_id}" for one in mine[:2]))

    started = [each.job_id for _ in range(3) for each in await claim(queue, 1)]

    assert mine[2].job_id in started
    assert await depth(queue) == 6 - len(started)


async def test_tenants_whose_jobs_are_all_served_are_forgotten_some_at_each_claim(
    queue: JobQueue, store: redis.Redis
) -> None:
    await queue.submit([job(f"t{number}") for number in range(600)])
    shares, left = f"bl:shares:{OPEN}", [600]
    await claim(queue, 600)
    while left[-1]:
        left.append(int(store.zcard(shares)))
        await claim(queue, 8)

    assert max(before - after for before, after in itertools.pairwise(left)) <= 256
    assert await claim(queue, 8) == []
    assert store.exists("bl:tenants:smollm2:int4") == 0


async def test_jobs_behind_tenants_whose_jobs_are_all_served_have_an_age(queue: JobQueue) -> None:
    await queue.submit([*jobs("a", 1), *jobs("b", 3)])
    for _ in range(2):
        await claim(queue, 1)  # one of a, which waits no longer and comes first, and one of b

    (row,) = [row for row in (await queue.depths("smollm2")).queues if row.queue == OPEN]

    assert row.depth == 2
    assert row.oldest_age_s is not None


async def test_depth_is_right_again_after_rq_has_emptied_a_tenant_s_list(queue: JobQueue, store: redis.Redis) -> None:
    await queue.submit([*jobs("acme", 50), *jobs("other", 5)])
    Queue(f"{OPEN}:tenant-acme", connection=store, serializer=JSONSerializer).empty()  # type: ignore[no-untyped-call]  # rq

    await sweep(queue, store)

    assert await depth(queue) == 5
    assert len(await claim(queue, 100)) == 5


async def test_tenants_are_served_after_their_shares_were_lost(queue: JobQueue, store: redis.Redis) -> None:
    await queue.submit([*jobs("acme", 5), *jobs("other", 5)])
    store.delete(f"bl:shares:{OPEN}", "bl:tenants:smollm2:int4")

    await sweep(queue, store)

    assert await depth(queue) == 10
    assert len(await claim(queue, 100)) == 10


async def test_a_job_that_came_back_runs_again_though_its_record_says_no_queue_any_more(
    queue: JobQueue, store: redis.Redis
) -> None:
    await queue.submit(jobs("acme", 1))
    (first,) = await claim(queue, 1)
    await queue.requeue("w", first, first.queue, reason=RequeueReason.UNCHARGED, last=DONE)
    store.hdel(f"rq:job:{first.job_id}", "origin")

    assert [again.job_id for again in await claim(queue, 1)] == [first.job_id]


async def test_a_dead_letter_is_released_though_its_tenant_s_count_is_garbled(
    queue: JobQueue, store: redis.Redis
) -> None:
    await queue.submit(jobs("acme", 1))
    (first,) = await claim(queue, 1)
    await queue.finish("w", [Finished(job=first, outcome=DONE, is_dead_letter=True)])
    store.set("bl:tenant:acme", "x")

    assert await queue.run(release_call(queue.settings, [first.job_id])) == [1]
    assert [again.job_id for again in await claim(queue, 1)] == [first.job_id]
