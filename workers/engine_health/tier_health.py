"""The part of one worker in its tier's health: it reports how jobs ended, and claims less while the traffic is shifted.

The worker's own breaker (breaker.py) judges one engine. This is about a tier: a checkpoint that breaks a share of all
jobs does so on every worker, too rarely on each of them to stop one. Redis has the counts of all (health.lua).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from bitladder.contract import Claimed
from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls.tier_state import TierState, health_call, read_health
from bitladder.queue.calls.worker_report import WorkerReport
from bitladder.queue.claim_plan import ClaimPlan, claim_plan, shifted_plan
from bitladder.queue.job_queue import JobQueue
from workers.engine_health.blame import Blame, FaultyAttempt, find_blame
from workers.identity import Identity

log = structlog.get_logger()
REPORT_INTERVAL_S = 1.0
# Faults of which it is not known yet whether the prompt is to blame: so many are kept and looked at, the oldest first.
_MAX_UNDECIDED = 256
# A job that was not run again after so long says nothing about its first tier.
_UNDECIDED_S = 60.0


class TierHealth:
    """What one worker knows of its tier; with the counts of jobs goes what the worker says of itself."""

    def __init__(self, queue: JobQueue, worker: Identity, report: Callable[[], WorkerReport]) -> None:
        self._queue, self._worker, self._report_of = queue, worker, report
        self._loop = asyncio.get_running_loop()
        self._sound = self._faults = 0  # not reported yet
        self._undecided: deque[tuple[float, FaultyAttempt]] = deque(maxlen=_MAX_UNDECIDED)
        self._plan = self._make_plan()
        self._shifted_plan: ClaimPlan | None = None  # None: the traffic is not shifted
        self._probe_s = 0.0  # when the next probe may be claimed

    def note(self, job: Claimed, is_fault: bool) -> None:
        """Note that a job was answered well, or broke; whether by the tier's fault shows what becomes of it."""
        if is_fault:
            self._undecided.append((self._loop.time(), FaultyAttempt(job.job_id, job.attempt)))
        else:
            self._sound += 1

    def limit(self, slots: int, *, may_overflow: bool = True) -> tuple[ClaimPlan, int]:
        """Return what to claim by, and how many jobs: one of all that wait, where a probe is due.

        Where nothing may overflow, the tiers above take nothing from this one, and it serves its jobs itself.
        """
        if not self._shifted_plan or not may_overflow:
            return self._plan, slots
        is_probe = self._loop.time() >= self._probe_s
        return (self._plan, 1) if is_probe else (self._shifted_plan, slots)

    def claimed(self, plan: ClaimPlan) -> None:
        """Note that a claim by this plan brought jobs."""
        if self._shifted_plan and plan == self._plan:
            self._probe_s = self._loop.time() + self._queue.settings.queue.probe_interval_s

    async def run(self) -> None:
        """Report once a second until cancelled."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            self._plan = self._make_plan()
            await self._decide()
            try:
                await self._report()
            except QueueUnreachableError:
                continue  # the claims tell of the outage; what is counted goes with the next report

    def _make_plan(self) -> ClaimPlan:
        """Return the plan by the settings as they are now: marks and lanes may change while the worker runs."""
        return claim_plan(self._queue.settings, self._worker.model, self._worker.tier)

    async def _decide(self) -> None:
        if not self._undecided:
            return
        known = await find_blame(self._queue, self._worker.tier, [faulty for _, faulty in self._undecided])
        self._faults += sum(blame is Blame.ENGINE for blame in known.values())
        since_s = self._loop.time() - _UNDECIDED_S
        left = [item for item in self._undecided if item[1] not in known and item[0] > since_s]
        self._undecided = deque(left, maxlen=_MAX_UNDECIDED)

    async def _report(self) -> None:
        settings, worker = self._queue.settings, self._worker
        sound, faults = self._sound, self._faults
        report = (worker.name, self._report_of())
        call = health_call(settings, worker.model, worker.tier, sound=sound, faults=faults, report=report)
        state = read_health(settings, worker.model, worker.tier, await self._queue.run(call))
        self._sound, self._faults = self._sound - sound, self._faults - faults
        self._follow(state)

    def _follow(self, state: TierState) -> None:
        worker = self._worker
        if state.is_shifted:
            ladder = self._queue.settings.model(worker.model).ladder
            self._shifted_plan = shifted_plan(self._plan, worker.model, ladder, state.serving)
        else:
            self._shifted_plan = None
        if state.is_shifted and not state.was_shifted:
            log.warning("traffic shifted", to=state.serving[0], fault_ratio=round(state.fault_ratio, 3))
        elif state.was_shifted and not state.is_shifted:
            log.warning("traffic came back", serving_above=list(state.serving))
