"""Cancel abandoned jobs, and try again until Redis has confirmed it.

Two kinds of jobs have no idempotency key and no client: those whose client closed its connection, and those that were
sent to Redis without an answer, so that their client was told to send them again. Redis may have such a job, may get
it later, or may never: a withdrawn job does not run in any of these cases (scripts/cancel.lua).

A client on a bad network may come back for its job: with `intake.abort_after_s` it has that time, at any intake.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from itertools import islice

import structlog
from prometheus_client import Gauge

from bitladder.contract import Submission
from bitladder.queue.calls.end import Doubtful
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.waiting.outcomes import OutcomeInbox

log = structlog.get_logger()
# Jobs of one round trip.
BUNDLE = 64
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 1.0
# Jobs that wait to be cancelled; beyond it the oldest are given up.
_MAX_JOBS = 20_000


class Withdrawals:
    """The abandoned jobs of one intake."""

    def __init__(self, queue: JobQueue, inbox: OutcomeInbox, waiting: Gauge) -> None:
        self._queue, self._inbox = queue, inbox
        self._left: dict[str, asyncio.TimerHandle] = {}  # by id: their clients may come back until then
        self._waiting: dict[str, tuple[Doubtful, float]] = {}  # by id, each with its deadline (time.monotonic)
        self._has_jobs, self._is_empty = asyncio.Event(), asyncio.Event()
        self._is_empty.set()
        waiting.set_function(lambda: len(self._waiting))

    def add_left(self, job: Submission) -> None:
        """Cancel a job whose client has left, in a while, where nobody has come for it by then."""
        after_s = self._queue.settings.intake.abort_after_s
        if after_s == "never":
            return
        if not after_s or len(self._left) >= _MAX_JOBS:
            self.add(job)
            return
        self._left[job.job_id] = asyncio.get_running_loop().call_later(after_s, self._end_left, job)

    def _end_left(self, job: Submission) -> None:
        del self._left[job.job_id]
        if not self._inbox.is_read(job.job_id):
            self.add(job, channel=self._inbox.channel)

    def add(self, job: Submission, *, channel: str = "") -> None:
        """Cancel a job in the background: the task that calls this may be ending.

        With a channel: unless others are to hear of the job.
        """
        lasts_s = job.deadline_ms / 1000 if job.deadline_ms else self._queue.settings.queue.max_wait_s
        doubtful = Doubtful(job_id=job.job_id, queue=job.queue, tenant=job.request.tenant, channel=channel)
        self._waiting[job.job_id] = doubtful, time.monotonic() + lasts_s
        if len(self._waiting) > _MAX_JOBS:
            self._give_up(next(iter(self._waiting)), "too many wait to be cancelled")
        self._has_jobs.set()
        self._is_empty.clear()

    async def work_for_ever(self) -> None:
        """Cancel the jobs that are added, again and again until Redis has confirmed it."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._has_jobs.wait()
            if await self._withdraw():
                pause_s = FIRST_PAUSE_S
                continue
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  (jitter)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def drain(self) -> None:
        """Wait a moment for the jobs that are left, and log those that could not be cancelled.

        Those whose clients may come back go on, as all do that are awaited when an intake closes.
        """
        for timer in self._left.values():
            timer.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_empty.wait(), 3 * self._queue.settings.redis.timeout_s)
        for job_id in list(self._waiting):
            self._give_up(job_id, "the intake closes")

    async def _withdraw(self) -> bool:
        """Withdraw the oldest jobs; return whether Redis has confirmed it for all of them."""
        now = time.monotonic()
        bundle = list(islice(self._waiting.values(), BUNDLE))
        answers = await self._queue.withdraw([job for job, _ in bundle])
        for (job, deadline_s), is_done in zip(bundle, answers, strict=True):
            if is_done or deadline_s < now:  # behind its deadline it does not run
                self._waiting.pop(job.job_id, None)
        if not self._waiting:
            self._has_jobs.clear()
            self._is_empty.set()
        return all(answers)

    def _give_up(self, job_id: str, reason: str) -> None:
        del self._waiting[job_id]
        log.warning("an abandoned job could not be cancelled", job_id=job_id, reason=reason)
