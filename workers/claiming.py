"""Claim jobs for one worker: at once where more may wait, else together with a wait for the next push."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from bitladder.contract import Claimed
from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls.claim import Claims, Unfit
from bitladder.queue.claim_plan import ClaimPlan, without_overflow
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue.server.outage import OUTAGE
from workers.engine_health.tier_health import TierHealth
from workers.identity import Identity
from workers.lease import LeaseKeeper
from workers.metrics.worker_metrics import WorkerMetrics
from workers.retry import pause

log = structlog.get_logger()
# After a claim that failed: shorter than before other calls, because claims are what jobs wait for.
MAX_PAUSE_S = 0.5
# How soon a worker notices `rq resume`, which wakes no worker.
_SUSPENDED_POLL_S = 0.25
_HELD = {0: "claims resumed", 1: "claims suspended", 2: "claims paused", 3: "claims drained"}
# What claim.lua says of an id whose record is gone.
NO_RECORD = "no_record"
# How many ids one claim's log lines name.
MAX_NAMED = 16


class Claimer:
    """Claims jobs, and notices that claims pause."""

    def __init__(
        self,
        queue: JobQueue,
        worker: Identity,
        leases: LeaseKeeper,
        health: TierHealth,
        metrics: WorkerMetrics,
        may_overflow: Callable[[], bool],
    ) -> None:
        settings, self._may_overflow = queue.settings, may_overflow
        self._queue, self._worker, self._leases, self._metrics = queue, worker, leases, metrics
        self._health = health
        self._waiter = connect(settings.redis, wait_s=settings.worker.block_s)
        self._held = 0
        self.is_queue_empty = False  # the last claim brought fewer jobs than it might: all there were

    async def claim(self, slots: int) -> Sequence[Claimed]:
        """Return up to `slots` jobs; none, after a pause, where Redis is unreachable or claims pause."""
        may_overflow = self._may_overflow()
        plan, slots = self._health.limit(slots, may_overflow=may_overflow)
        if not may_overflow:
            plan = without_overflow(plan)
        try:
            claims = await self._call(plan, slots)
        except QueueUnreachableError as error:
            OUTAGE.warn("claim failed", error=str(error))
            await pause(MAX_PAUSE_S)
            return ()
        if claims.held != self._held:
            self._note_hold(claims.held)
        if claims.held:
            await asyncio.sleep(_SUSPENDED_POLL_S)
            return ()
        self._metrics.count_expired(claims.expired)
        self._count_unfit(claims.unfit)
        if claims.jobs:
            self._health.claimed(plan)
        self.is_queue_empty = len(claims.jobs) < slots and not claims.is_cut  # a later push leaves a wake token
        return claims.jobs

    async def aclose(self) -> None:
        await self._waiter.aclose()

    async def _call(self, plan: ClaimPlan, slots: int) -> Claims:
        args = (self._worker.name, self._worker.model, self._worker.tier, plan, slots)
        asked_s = time.monotonic()
        with self._leases.claiming():
            if self.is_queue_empty and not self._held:
                # Jobs of RQ's own producers announce themselves to no worker: they are found when this wait ends.
                claims = await self._queue.claim_when_pushed(self._waiter, *args)
            else:
                claims = await self._queue.claim(*args)
        self._leases.clock.observe(claims.now_ms, asked_s)
        return claims

    def _note_hold(self, held: int) -> None:
        self._held = held
        self._metrics.suspended.set(held > 0)
        log.info(_HELD[held])

    def _count_unfit(self, unfit: Sequence[Unfit]) -> None:
        """Count ids that were in a list and cannot run, and name some of them."""
        for item in unfit:
            (self._metrics.dropped if item.why == NO_RECORD else self._metrics.dead_lettered(item.why)).inc()
        for item in unfit[:MAX_NAMED]:
            event = "id dropped" if item.why == NO_RECORD else "job dead-lettered"
            log.warning(event, job_id=item.job_id, code=item.why)
        if len(unfit) > MAX_NAMED:
            log.warning("ids dropped or dead-lettered", unnamed=len(unfit) - MAX_NAMED)
