"""workers/engine_health/blame.py: what became of a job that broke, on a real Valkey."""

from __future__ import annotations

import msgspec
import pytest
import redis

from bitladder.contract import Claimed, Outcome, State
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from tests.bitladder.queue.test_job_queue import DONE, claim, job, submit
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture
from tests.conftest import free_port, make_settings
from workers.engine_health.blame import Blame, FaultyAttempt, find_blame

FAULT = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke")


async def breaks(queue: JobQueue, tier: str, target: str = "") -> Claimed:
    """Let the job that waits break on a tier, and go back, or to the queue of another one."""
    [last] = await claim(queue, tier)
    fault = msgspec.structs.replace(FAULT, tier=tier)
    await queue.requeue(f"w-{tier}", last, target or last.queue, reason=RequeueReason.CHARGED, last=fault)
    return last


async def blame(queue: JobQueue, broken: Claimed, attempt: int = 1, tier: str = "int4") -> Blame | None:
    faulty = FaultyAttempt(broken.job_id, attempt)
    return (await find_blame(queue, tier, [faulty])).get(faulty)


async def test_a_job_that_was_well_elsewhere_broke_by_its_engine_s_fault(queue: JobQueue) -> None:
    await submit(queue, job())
    broken = await breaks(queue, "int4")
    assert await blame(queue, broken) is None  # it waits for its next try
    [again] = await claim(queue, "int4", worker="other")
    assert await blame(queue, broken) is None  # and has it

    await queue.finish("other", [Finished(job=again, outcome=DONE)])

    assert await blame(queue, broken) is Blame.ENGINE


async def test_a_job_that_breaks_on_other_tiers_as_well_has_itself_to_blame(queue: JobQueue) -> None:
    await submit(queue, job())
    broken = await breaks(queue, "int4", "smollm2:int8:normal")
    assert await blame(queue, broken) is None

    await breaks(queue, "int8", "smollm2:fp8:normal")
    assert await blame(queue, broken) is Blame.PROMPT
    assert await blame(queue, broken, 2, "int8") is None
    await breaks(queue, "fp8")

    assert [await blame(queue, broken, at, tier) for at, tier in enumerate(("int4", "int8", "fp8"), 1)] == [
        *[Blame.PROMPT] * 2,
        Blame.UNCLEAR,  # of the last tier: its other jobs decide
    ]


async def test_of_a_job_that_broke_on_one_tier_only_the_blame_is_unclear(queue: JobQueue) -> None:
    await submit(queue, job())
    broken = await breaks(queue, "int4")
    await breaks(queue, "int4")
    assert await blame(queue, broken) is Blame.UNCLEAR
    await breaks(queue, "int4")

    assert await blame(queue, broken) is Blame.UNCLEAR


@pytest.mark.parametrize("end", ["cancelled", "expired", "gone"])
async def test_a_job_that_never_had_another_try_blames_nobody(queue: JobQueue, store: redis.Redis, end: str) -> None:
    await submit(queue, job())
    broken = await breaks(queue, "int4")

    if end == "cancelled":
        await queue.cancel(broken.job_id)
    elif end == "gone":
        store.delete(f"rq:job:{broken.job_id}")
    else:
        store.hset(f"rq:job:{broken.job_id}", "wait", "1 2 0")
        await claim(queue, "int4")

    assert await blame(queue, broken) is Blame.NOBODY


async def test_without_redis_no_blame_is_found() -> None:
    settings = make_settings(f"redis://127.0.0.1:{free_port()}/0")
    queue = JobQueue(connect(settings.redis), settings)

    assert await find_blame(queue, "int4", [FaultyAttempt("any", 1)]) == {}
    await queue.aclose()
