"""Cancel what nobody can come back for, for as long as it takes Redis to hear of it.

Two kinds of jobs have no idempotency key and no client: those whose client closed its connection, and those that were
sent to Redis and never answered, so that their client was told to send them again. Redis may have such a job, may get
it later, or may never: what is withdrawn does not run in any of these cases (scripts/cancel.lua).
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

log = structlog.get_logger()
# Of one round trip.
BUNDLE = 64
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
# Jobs that are remembered at once; the oldest are given up.
MOST = 20_000


class Withdrawals:
    """The jobs of one intake that are to be cancelled."""

    def __init__(self, queue: JobQueue, waiting: Gauge) -> None:
        self._queue = queue
        self._waiting: dict[str, tuple[Doubtful, float]] = {}  # by id, and until when it would run (time.monotonic)
        self._there, self._none = asyncio.Event(), asyncio.Event()
        self._none.set()
        waiting.set_function(lambda: len(self._waiting))

    def add(self, job: Submission) -> None:
        """Cancel a job in the background: whoever notices that it is nobody's may be ending."""
        lasts_s = job.deadline_ms / 1000 if job.deadline_ms else self._queue.settings.queue.max_wait_s
        doubtful = Doubtful(job_id=job.job_id, queue=job.queue, tenant=job.request.tenant)
        self._waiting[job.job_id] = doubtful, time.monotonic() + lasts_s
        if len(self._waiting) > MOST:
            self._give_up(next(iter(self._waiting)), "too many wait to be cancelled")
        self._there.set()
        self._none.clear()

    async def work_for_ever(self) -> None:
        """Cancel what is added, again and again until Redis has heard of it."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._there.wait()
            if await self._withdraw():
                pause_s = FIRST_PAUSE_S
                continue
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  (jitter)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def drain(self) -> None:
        """Wait a moment for what is under way, and say what is left."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), 3 * self._queue.settings.redis.timeout_s)
        for job_id in list(self._waiting):
            self._give_up(job_id, "the intake ends")

    async def _withdraw(self) -> bool:
        """Withdraw the oldest ones; return whether Redis has heard of them all."""
        now = time.monotonic()
        bundle = list(islice(self._waiting.values(), BUNDLE))
        answers = await self._queue.withdraw([job for job, _ in bundle])
        for (job, until), is_done in zip(bundle, answers, strict=True):
            if is_done or until < now:  # or its deadline keeps it from running
                self._waiting.pop(job.job_id, None)
        if not self._waiting:
            self._there.clear()
            self._none.set()
        return all(answers)

    def _give_up(self, job_id: str, reason: str) -> None:
        del self._waiting[job_id]
        log.warning("a job that nobody awaits could not be cancelled", job_id=job_id, reason=reason)
