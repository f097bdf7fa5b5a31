"""Tell Redis which jobs the engine has begun: if the worker is lost, only these are charged an attempt."""

from __future__ import annotations

import asyncio

from bitladder.errors import QueueUnreachableError
from bitladder.queue.job_queue import JobQueue
from workers.retry import pause

# A job that ends within this time needs no call. A worker that is killed within it costs the job no attempt.
_REPORT_AFTER_S = 0.02


class BegunReporter:
    """Collects which jobs have begun, and reports those of one moment together. No job waits for a report."""

    def __init__(self, queue: JobQueue, worker: str) -> None:
        self._queue, self._worker = queue, worker
        self._pending: dict[str, bool] = {}  # by job: whether the engine has begun it
        self._reporting: asyncio.Task[None] | None = None

    def note(self, job_id: str, *, has_begun: bool = True) -> None:
        """Note that the engine takes a job, or that it has refused the job without beginning it."""
        self._pending[job_id] = has_begun
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(self._report())

    def forget(self, job_id: str) -> None:
        """Note that a job has ended: there is nothing to report of it."""
        self._pending.pop(job_id, None)

    async def _report(self) -> None:
        while self._pending:
            await asyncio.sleep(_REPORT_AFTER_S)
            noted, self._pending = self._pending, {}
            try:
                for has_begun in (True, False):
                    ids = [job_id for job_id, is_begun in noted.items() if is_begun is has_begun]
                    await self._queue.mark_begun(self._worker, ids, has_begun=has_begun)
            except QueueUnreachableError:
                self._pending = noted | self._pending
                await pause()

    async def stop(self) -> None:
        """Report nothing more."""
        if self._reporting:
            self._reporting.cancel()
            await asyncio.wait([self._reporting])
