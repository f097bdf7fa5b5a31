"""workers/handling/job_tasks.py: what interrupts a job, and what does not."""

from __future__ import annotations

import asyncio

from bitladder.contract import Claimed
from workers.handling.job_tasks import Interruption, JobTask, JobTasks


def claimed(fence: int) -> Claimed:
    return Claimed(
        job_id="a",
        data=b"",
        queue="smollm2:int4:normal",
        attempt=1,
        fence=fence,
        enqueued_ms=0,
        deadline_ms=0,
        claimed_ms=0,
    )


async def test_a_lost_lease_interrupts_the_claim_that_had_it_and_no_later_one() -> None:
    interrupted: list[tuple[int, Interruption | None]] = []

    async def handle(job_task: JobTask) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupted.append((job_task.job.fence, job_task.interruption))

    tasks = JobTasks(handle, lambda job_id: None)
    tasks.start(claimed(1))
    await asyncio.sleep(0)
    asked = tasks.fences()
    tasks.start(claimed(2))  # while the answer to a renewal that named the first claim is on its way
    await asyncio.sleep(0)

    tasks.interrupt("a", Interruption.LOST, asked["a"])
    await asyncio.sleep(0)
    lost = list(interrupted)
    tasks.interrupt("a", Interruption.LOST, tasks.fences()["a"])
    await tasks.wait(5)

    assert lost == [(1, Interruption.LOST)]
    assert interrupted == [(1, Interruption.LOST), (2, Interruption.LOST)]
