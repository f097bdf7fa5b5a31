"""Batch jobs fill idle slots, and yield: where a more urgent job waits and no slot is free, the youngest go back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence

from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls.read import Depths
from bitladder.queue.job_queue import JobQueue
from bitladder.queue_name import Lane, QueueName
from bitladder.script_constants import JOBS_PER_CYCLE
from workers.handling.job_tasks import Interruption, JobTask, JobTasks
from workers.identity import Identity

# How often a full worker looks whether more urgent jobs wait.
_EVERY_S = 0.25
# A job that has waited for less may be about to be claimed by another worker.
_NEW_S = 0.1


def waiting_share(depths: Depths, tier: str) -> int:
    """Return how many jobs of a tier's more urgent lanes wait, by its live workers: each makes room for its share."""
    names = [(QueueName.parse(row.queue), row) for row in depths.queues]
    waiting = sum(
        row.depth
        for name, row in names
        if name.tier == tier and name.lane != Lane.BATCH and (row.oldest_age_s or 0) > _NEW_S
    )
    return math.ceil(waiting / max(1, depths.live.get(tier, 1)))


def to_yield(held: Sequence[JobTask], waiting: int) -> list[JobTask]:
    """Return the batch jobs that make room for so many others; `held`: the oldest first.

    The youngest yield, because least of their work is lost, and only those of which nobody has seen output. The oldest
    keep the share of the slots that a claim gives to the batch lane: so the lane goes on, however much is urgent.
    """
    batch = [job_task for job_task in held if job_task.job.lane == Lane.BATCH]
    kept = max(1, len(held) // JOBS_PER_CYCLE)
    young = [job_task for job_task in batch[kept:] if not job_task.has_output and not job_task.is_settling]
    return young[::-1][:waiting]


class BatchYield:
    """Watches the more urgent lanes of one worker's tier while it is full of batch jobs."""

    def __init__(self, queue: JobQueue, worker: Identity, tasks: JobTasks, is_full: Callable[[], bool]) -> None:
        self._queue, self._worker, self._tasks, self._is_full = queue, worker, tasks, is_full

    async def run(self) -> None:
        """Run until cancelled. Where no batch job could yield, nothing is asked of Redis."""
        while True:
            await asyncio.sleep(_EVERY_S)
            if self._is_full() and to_yield(self._tasks.held(), 1):
                with contextlib.suppress(QueueUnreachableError):
                    await self._make_room()

    async def _make_room(self) -> None:
        waiting = waiting_share(await self._queue.depths(self._worker.model), self._worker.tier)
        for job_task in to_yield(self._tasks.held(), waiting) if self._is_full() else ():
            job_task.interrupt(Interruption.YIELDED)
