"""workers/handling/yielding.py: which batch jobs make room, and that they do on a real stack's queue."""

from __future__ import annotations

import asyncio
import time

import redis
from hypothesis import given
from hypothesis import strategies as st

from bitladder.contract import Claimed
from bitladder.producer import Producer
from bitladder.queue.calls.read import Depth, Depths
from bitladder.queue_name import Lane
from tests.conftest import make_settings
from tests.workers.test_pump import running, until
from workers.handling.job_tasks import JobTask
from workers.handling.yielding import to_yield, waiting_share

BATCH = {"model": "smollm2", "prompt": "aaaa", "max_tokens": 60}


def held(lane: str, *, has_output: bool = False) -> JobTask:
    job = Claimed(
        job_id="a", data=b"", queue=f"m:int4:{lane}", attempt=1, fence=1, enqueued_ms=0, deadline_ms=0, claimed_ms=0
    )
    job_task = JobTask(job)
    job_task.has_output = has_output
    return job_task


@given(
    kinds=st.lists(st.tuples(st.sampled_from(Lane), st.booleans()), max_size=80),
    waiting=st.integers(0, 100),
)
def test_only_batch_jobs_without_output_yield_as_many_as_wait_and_the_oldest_keep_their_share(
    kinds: list[tuple[Lane, bool]], waiting: int
) -> None:
    jobs = [held(lane, has_output=has_output) for lane, has_output in kinds]

    yielding = to_yield(jobs, waiting)

    batch = [job for job in jobs if job.job.lane == Lane.BATCH]
    oldest = batch[: max(1, len(jobs) // 16)]
    assert all(job in batch and job not in oldest and not job.has_output for job in yielding)
    able = [job for job in batch if job not in oldest and not job.has_output]
    assert yielding == able[::-1][:waiting]


def test_each_live_worker_makes_room_for_its_share_of_what_waits_in_more_urgent_lanes() -> None:
    def row(queue: str, depth: int, age_s: float = 1) -> Depth:
        return Depth(queue=queue, depth=depth, in_flight=0, oldest_age_s=age_s)

    rows = [row("m:int4:urgent", 1), row("m:int4:normal:max-int8", 4), row("m:int4:batch", 90), row("m:int8:normal", 9)]
    depths = Depths(now_ms=0, live={"int4": 2, "int8": 1}, queues=rows)
    fresh = Depths(now_ms=0, live={}, queues=[row("m:int4:normal", 3, 0.01)])

    assert [waiting_share(depths, "int4"), waiting_share(depths, "int8"), waiting_share(fresh, "int4")] == [3, 9, 0]


async def test_a_worker_full_of_batch_jobs_begins_a_normal_job_within_a_second_and_loses_none(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, models__smollm2__tiers__int4__slots=4, echo__tokens_per_s=15)
    with Producer(settings) as producer:
        async with running(settings) as pump:
            await until(lambda: pump.leases.is_ready)
            batch = [str(job_id) for job_id in producer.submit_many(dict(BATCH) for _ in range(6))]
            await until(lambda: store.zcard("rq:wip:smollm2:int4:batch") == 4)
            start = time.monotonic()
            normal = producer.submit({**BATCH, "max_tokens": 3}, lane=Lane.NORMAL)
            await until(lambda: store.hget(f"rq:job:{normal}", "status") != b"queued")
            began_s = time.monotonic() - start
            still_run = store.zcard("rq:wip:smollm2:int4:batch")
            outcomes = [await asyncio.to_thread(producer.wait, job_id, timeout_s=40) for job_id in (normal, *batch)]

    assert began_s < 1
    assert still_run == 3
    assert [(outcome.state, outcome.attempts) for outcome in outcomes if outcome] == [("finished", 1)] * 7
