"""A job whose deadline is near goes before its turn: scripts/parts/expiry.lua, on a real Valkey."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
import redis

from bitladder.contract import Claimed, Submission
from bitladder.queue.calls.end import RequeueReason
from bitladder.queue.job_queue import JobQueue
from tests.bitladder.queue.scripts.test_tenants import DONE, OPEN, claim, finish, job, jobs, plain, queue

__all__ = ["plain", "queue"]
SERVICE_MS = 2000
# Within three times of what a job takes, and not below it: due.
DUE_MS, TOO_LATE_MS, LATER_MS = 5000, 1500, 60_000


def due(tenant: str = "default", deadline_ms: int = DUE_MS) -> Submission:
    return msgspec.structs.replace(job(tenant), deadline_ms=deadline_ms)


@pytest.mark.parametrize("tenant", ["default", "acme"])
async def test_a_near_deadline_goes_first_in_its_tenant_s_list_and_everything_is_counted_right(
    queue: JobQueue, store: redis.Redis, tenant: str
) -> None:
    queue.service_ms = SERVICE_MS
    before, urgent, behind = jobs(tenant, 50), due(tenant), jobs(tenant, 5)
    await queue.submit([*before, due(tenant, LATER_MS), urgent, due(tenant, TOO_LATE_MS), *behind])

    first = await claim(queue, 2)
    depth = {row.queue: row.depth for row in (await queue.depths("smollm2")).queues}[OPEN]
    view = await queue.view(behind[0].job_id)
    await finish(queue, first)
    rest = [each for _ in range(9) for each in await claim(queue, 8)]
    await finish(queue, rest)

    assert [each.job_id for each in first] == [urgent.job_id, before[0].job_id]
    assert depth == 56
    assert view is not None
    assert view.position == 52
    assert len({each.job_id for each in rest}) == len(rest) == 56
    assert {str(key) for key in store.keys("*") if store.ttl(key) == -1} <= {
        "b'bl:workers'", "b'bl:protocol'", "b'rq:queues'"
    }  # fmt: skip
    assert store.keys("bl:due:*") == store.keys("bl:gone:*") == store.keys("bl:counts:*") == []


async def test_of_eight_jobs_one_is_the_oldest_however_many_are_due(queue: JobQueue) -> None:
    queue.service_ms = SERVICE_MS
    undated = jobs("default", 20)
    await queue.submit([*undated, *(due(deadline_ms=DUE_MS - number) for number in range(100))])

    started = [each.job_id for _ in range(32) for each in await claim(queue, 2)]
    oldest = [one.job_id for one in undated]

    assert [job_id for job_id in started if job_id in oldest] == oldest[:8]


async def test_a_job_that_ran_before_its_turn_and_came_back_is_claimed_once_from_where_it_waits(
    queue: JobQueue,
) -> None:
    queue.service_ms = SERVICE_MS
    others, same, higher = jobs("default", 4), due(), due()
    await queue.submit([*others, same, higher])
    held = {each.job_id: each for each in await claim(queue, 2)}
    up = OPEN.replace("int4", "int8")
    await queue.requeue("w", held[same.job_id], OPEN, reason=RequeueReason.UNCHARGED, last=DONE)
    await queue.requeue("w", held[higher.job_id], up, reason=RequeueReason.UNCHARGED, last=DONE)

    started = [each.job_id for _ in range(3) for each in await claim(queue, 8)]
    depths = {row.queue: row.depth for row in (await queue.depths("smollm2")).queues}

    assert started == [same.job_id, *(one.job_id for one in others)]
    assert (depths[OPEN], depths[up]) == (0, 1)


async def test_a_cancelled_job_is_not_due_any_more(queue: JobQueue, store: redis.Redis) -> None:
    first, second = due(), due()
    await queue.submit([*jobs("default", 3), first, second])
    await queue.cancel(first.job_id)

    queue.service_ms = SERVICE_MS
    assert store.zrange(f"bl:due:{OPEN}", 0, -1) == [second.job_id.encode()]
    assert [each.job_id for each in await claim(queue, 1)] == [second.job_id]


@pytest.mark.long
@pytest.mark.parametrize(("deadlines_ms", "gain"), [((800, 4000), 1.1), ((1000, 1000), 1.5)])
async def test_at_one_and_a_half_times_the_capacity_more_answers_are_in_time_than_first_in_first_out(
    queue: JobQueue, store: redis.Redis, deadlines_ms: tuple[int, int], gain: float
) -> None:
    in_time = {}
    for service_ms in (0, 100):  # 0: the rule does not judge
        store.flushdb()
        queue.service_ms = service_ms
        in_time[service_ms] = await _answered_in_time(queue, deadlines_ms)
    print(deadlines_ms, "first in first out, near deadlines first:", in_time)  # noqa: T201

    assert in_time[100] > gain * in_time[0]


async def _answered_in_time(queue: JobQueue, deadlines_ms: tuple[int, int]) -> int:
    """Serve 120 jobs a second with 8 slots of a tenth of a second each; count from the fifth second to the tenth."""
    chance, loop = random.Random(7), asyncio.get_running_loop()  # noqa: S311
    start, submitted, in_time = loop.time(), 0, 0
    running: list[tuple[float, Claimed]] = []
    while (now := loop.time() - start) < 10:
        arrived = int(120 * now)
        await queue.submit([due(deadline_ms=deadlines_ms[number % 2]) for number in range(submitted, arrived)])
        submitted = arrived
        over = [each for end, each in running if end <= now]
        running = [(end, each) for end, each in running if end > now]
        if over:
            await finish(queue, over)
            now_ms = (await queue.depths("smollm2")).now_ms if now > 5 else 2**53
            in_time += sum(each.deadline_ms is not None and each.deadline_ms >= now_ms for each in over)
        if len(running) < 8:
            claimed = await claim(queue, 8 - len(running))
            running += [(now + chance.uniform(0.07, 0.13), each) for each in claimed]
        await asyncio.sleep(0.004)
    return in_time
