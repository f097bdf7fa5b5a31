"""Tell Redis which jobs the engine has begun: what a worker that is lost held before that costs no attempt."""

from __future__ import annotations

import asyncio
import random

from bitladder.errors import QueueUnreachableError
from bitladder.queue.job_queue import JobQueue

# What ends before it is told of needs no call. A worker that is lost so soon after an engine began costs no attempt.
TELL_AFTER_S = 0.02


class Begun:
    """Collects what became of jobs, and tells that of one moment together. Nobody waits for it."""

    def __init__(self, queue: JobQueue, worker: str) -> None:
        self._queue, self._worker = queue, worker
        self._untold: dict[str, bool] = {}  # by job: whether the engine has begun it
        self._telling: asyncio.Task[None] | None = None

    def note(self, job_id: str, *, has_begun: bool = True) -> None:
        """Note that the engine takes a job, or that it has refused it without having begun."""
        self._untold[job_id] = has_begun
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    def forget(self, job_id: str) -> None:
        """Note that a job is over: nothing is to be told of it."""
        self._untold.pop(job_id, None)

    async def _tell(self) -> None:
        while self._untold:
            await asyncio.sleep(TELL_AFTER_S)
            told, self._untold = self._untold, {}
            try:
                for has_begun in (True, False):
                    ids = [job_id for job_id, its in told.items() if its is has_begun]
                    await self._queue.mark_begun(self._worker, ids, has_begun=has_begun)
            except QueueUnreachableError:
                self._untold = told | self._untold
                await asyncio.sleep(random.uniform(0.2, 1))  # noqa: S311  (jitter)

    async def stop(self) -> None:
        """Say nothing any more."""
        if self._telling:
            self._telling.cancel()
            await asyncio.wait([self._telling])
