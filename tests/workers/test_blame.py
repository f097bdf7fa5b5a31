"""workers/blame.py: what became of a job that broke, on a real Valkey."""

from __future__ import annotations

import pytest
import redis

from dispatcher.contract import Claimed, Outcome, State
from dispatcher.queue.commands import Finished
from dispatcher.queue.connection import connect
from dispatcher.queue.job_queue import JobQueue
from tests.conftest import free_port, make_settings
from tests.dispatcher.test_job_queue import DONE, claim, job, submit
from tests.dispatcher.test_job_queue import queue as queue  # the fixture
from workers.blame import Blame, Suspect, blamed

FAULT = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke")


async def broken(queue: JobQueue, *, attempts: int) -> Claimed:
    """Return a job's last execution, after so many that broke."""
    await submit(queue, job())
    for _ in range(attempts):
        [last] = await claim(queue, "int4")
        await queue.give_back("w-int4", last, last.queue, word="charged", last=FAULT)
    return last


async def blame(queue: JobQueue, one: Claimed, attempt: int = 1) -> Blame | None:
    suspect = Suspect(one.job_id, attempt)
    return (await blamed(queue, [suspect])).get(suspect)


async def test_a_job_that_was_well_elsewhere_broke_by_its_engine_s_fault(queue: JobQueue) -> None:
    one = await broken(queue, attempts=1)
    assert await blame(queue, one) is None  # it waits for its next try
    [again] = await claim(queue, "int4", worker="other")
    assert await blame(queue, one) is None  # and has it

    await queue.finish("other", [Finished(job=again, outcome=DONE)])

    assert await blame(queue, one) is Blame.ENGINE


async def test_a_job_that_breaks_again_and_again_has_itself_to_blame(queue: JobQueue) -> None:
    one = await broken(queue, attempts=2)
    assert await blame(queue, one) is Blame.PROMPT
    assert await blame(queue, one, attempt=2) is None

    [again] = await claim(queue, "int4")
    assert await blame(queue, one) is Blame.PROMPT
    await queue.give_back("w-int4", again, again.queue, word="charged", last=FAULT)

    assert [await blame(queue, one, attempt) for attempt in (1, 2, 3)] == [Blame.PROMPT] * 3


@pytest.mark.parametrize("end", ["cancelled", "expired", "gone"])
async def test_a_job_that_never_had_another_try_blames_nobody(queue: JobQueue, store: redis.Redis, end: str) -> None:
    one = await broken(queue, attempts=1)

    if end == "cancelled":
        await queue.cancel(one.job_id)
    elif end == "gone":
        store.delete(f"rq:job:{one.job_id}")
    else:
        store.hset(f"rq:job:{one.job_id}", "wait", "1 2 0")
        await claim(queue, "int4")

    assert await blame(queue, one) is Blame.NOBODY


async def test_without_redis_nobody_is_blamed() -> None:
    settings = make_settings(f"redis://127.0.0.1:{free_port()}/0")
    queue = JobQueue(connect(settings.redis), settings)

    assert await blamed(queue, [Suspect("any", 1)]) == {}
    await queue.aclose()
