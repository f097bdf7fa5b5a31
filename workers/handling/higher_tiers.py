"""The tiers above a worker's own: whether one of them can take a job that this tier could not answer well."""

from __future__ import annotations

from bitladder.contract import Claimed
from bitladder.errors import QueueUnreachableError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue_name import QueueName
from workers.identity import Identity


class HigherTiers:
    """Asks Redis which workers are live. Only for jobs that something went wrong with, so it may cost a round trip."""

    def __init__(self, queue: JobQueue, worker: Identity) -> None:
        self._queue, self._worker = queue, worker
        self._ladder = queue.settings.model(worker.model).ladder
        self._max_attempts = queue.settings.queue.max_attempts

    async def can_take(self, job: Claimed) -> bool:
        """Return whether the job has an attempt left and a worker above would run it."""
        return self.may_take(job) and await self._are_live(job)

    def may_take(self, job: Claimed, *, attempts: int = 1) -> bool:
        """Return whether the job has an attempt left, or so many, and its ceiling a tier above."""
        return job.attempt + attempts <= self._max_attempts and bool(self._above(job))

    async def queue_for(self, job: Claimed) -> str:
        """Return the queue one tier up, or the job's own where no worker above would serve it."""
        if not await self._are_live(job):
            return job.queue
        above = self._above(job)
        return str(QueueName.of(self._worker.model, above[0], job.lane, above, self._ladder))

    async def _are_live(self, job: Claimed) -> bool:
        above = self._above(job)
        try:
            live = (await self._queue.depths(self._worker.model)).serving if above else {}
        except QueueUnreachableError:
            return False
        return any(live.get(tier) for tier in above)

    def _above(self, job: Claimed) -> tuple[str, ...]:
        """Return the higher tiers that may run the job, none below its floor, even if this one is.

        They are taken from the name of its queue: that is checked, while a request may come from any producer.
        """
        lowest = max(self._ladder.index(self._worker.tier) + 1, self._ladder.index(job.tier))
        return tuple(tier for tier in job.serving(self._ladder) if self._ladder.index(tier) >= lowest)
