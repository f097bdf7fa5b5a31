"""Settle jobs after their execution: store the outcome, requeue, or escalate. No cancellation cuts this short."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence

import msgspec
import structlog

from bitladder.contract import Claimed, Outcome, Request, State
from bitladder.decision import UNDECIDED, Decision
from bitladder.errors import QueueUnreachableError
from bitladder.process.batching import Batcher
from bitladder.queue.calls.end import Finished, RequeueReason, finished_bytes
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import ByteBudget
from bitladder.queue.server.outage import OUTAGE
from bitladder.queue_name import DEFAULT_TENANT
from workers.execute import Executed, Verdict
from workers.handling.cascading import unsure
from workers.handling.cost_ledger import CostLedger
from workers.handling.higher_tiers import HigherTiers
from workers.handling.job_traces import JobTraces
from workers.handling.prefixes import PrefixNotes
from workers.identity import Identity
from workers.metrics.worker_metrics import WorkerMetrics
from workers.retry import until_reachable

log = structlog.get_logger()
MAX_BUNDLE = 256
# A busy engine needs time; without a pause the job would come straight back to it.
BUSY_PAUSE_S = 0.2
# A job that a busy engine returned so often may be one that it never takes. It goes one tier up, where that is
# possible, before it keeps the others waiting for ever.
_MAX_RETURNS = 8
# Jobs whose returns one worker remembers.
_MAX_REMEMBERED = 10_000


class Settler:
    """Carries the ends of one worker's jobs to Redis, many in one call, for as long as it takes."""

    def __init__(
        self,
        queue: JobQueue,
        worker: Identity,
        metrics: WorkerMetrics,
        higher: HigherTiers,
        note_end: Callable[[Claimed, bool], None],
        traces: JobTraces,
    ) -> None:
        self._queue, self._worker, self._metrics, self._higher = queue, worker, metrics, higher
        self.ledger, self.traces = CostLedger(queue, worker, metrics), traces
        self._note_end, self._prefixes = note_end, PrefixNotes(queue, worker)
        self._ladder = queue.settings.model(worker.model).ladder
        self._finish: Batcher[Finished, bool] = Batcher(self._finish_many, max_items=MAX_BUNDLE)
        self._budget = ByteBudget()  # of one call
        self._returns: dict[str, int] = {}  # by job: how often this engine was too busy to take it

    async def settle(self, job: Claimed, done: Executed, cost: float | None) -> None:
        """Do what the verdict says; `cost`, here and below: of all executions of the job, None: none has begun."""
        self._note(job, done)
        outcome, tenant = self._completed(job, done, cost), done.request.tenant if done.request else DEFAULT_TENANT
        if done.degenerate:
            self._metrics.degenerate(done.degenerate).inc()
        if done.verdict is Verdict.DEAD_LETTER:
            self._metrics.dead_lettered(outcome.code or "").inc()
            log.warning("job dead-lettered", job_id=job.job_id, code=outcome.code)
        if not done.has_begun:
            await self._end_unbegun(
                job, outcome, RequeueReason.EXPIRED if done.verdict is Verdict.FINISH else RequeueReason.REFUSED
            )
        elif done.verdict in (Verdict.FINISH, Verdict.DEAD_LETTER):
            await self._end(job, outcome, tenant, is_dead_letter=done.verdict is Verdict.DEAD_LETTER)
        elif done.verdict is Verdict.UNSURE:
            target, kept = await self._higher.queue_for(job), outcome if outcome.state is State.FINISHED else None
            await self._requeue(job, target, RequeueReason.CHARGED, unsure(outcome) if kept else outcome, kept=kept)
        elif done.verdict is Verdict.REQUEUE:
            await asyncio.sleep(BUSY_PAUSE_S)
            target = await self._higher.queue_for(job) if self._is_stuck(job.job_id) else job.queue
            await self._requeue(job, target, RequeueReason.UNCHARGED, outcome)
        else:
            self._metrics.faults.inc()
            await self._requeue_faulty(job, done.verdict, outcome)

    def _note(self, job: Claimed, done: Executed) -> None:
        if done.verdict in (Verdict.ESCALATE, Verdict.UNSURE) or done.outcome.state is State.FINISHED:
            self._note_end(job, done.verdict is Verdict.ESCALATE)
        if done.request and done.request.prefix:
            self._prefixes.note(done.request.prefix)

    async def _requeue_faulty(self, job: Claimed, verdict: Verdict, last: Outcome) -> None:
        if verdict is Verdict.ISOLATE:
            await self._requeue(job, job.queue, RequeueReason.CRASHED, last)
        else:
            await self._requeue(job, await self._higher.queue_for(job), RequeueReason.CHARGED, last)

    def _is_stuck(self, job_id: str) -> bool:
        """Count one more return of a job that the engine did not take; True when it was one too many."""
        returns = self._returns.pop(job_id, 0) + 1
        if returns >= _MAX_RETURNS:
            return True
        self._returns[job_id] = returns
        if len(self._returns) > _MAX_REMEMBERED:
            del self._returns[next(iter(self._returns))]  # the job that was returned longest ago
        return False

    async def settle_cancelled(self, job: Claimed, cost: float | None, *, has_begun: bool) -> None:
        """End a job that its client cancelled."""
        outcome = self._own_outcome(job, cost, 409, "cancelled", "the job was cancelled")
        outcome = msgspec.structs.replace(outcome, state=State.CANCELLED)
        if has_begun:
            await self._end(job, outcome)
        else:
            uncharged = msgspec.structs.replace(outcome, attempts=job.attempt - 1)
            await self._end_unbegun(job, uncharged, RequeueReason.CANCELLED)

    async def settle_returned(self, job: Claimed, cost: float | None, code: str, why: str) -> None:
        """Requeue a job that this worker has no time or no slot left for."""
        last = self._own_outcome(job, cost, 503, code, why)
        await self._requeue(job, job.queue, RequeueReason.UNCHARGED, last)

    async def settle_broken(self, job: Claimed, cost: float | None, *, has_begun: bool) -> None:
        """Requeue a job that this worker has a defect with: its lease would be renewed for ever otherwise."""
        last = self._own_outcome(job, cost, 500, "worker_defect", "the worker broke on this job")
        target = await self._higher.queue_for(job)
        reason = RequeueReason.CHARGED if has_begun else RequeueReason.UNBEGUN
        await self._requeue(job, target, reason, last)

    def settle_lost(self) -> None:
        """Count a job whose lease was lost: another worker has it, and nothing is to be stored."""
        self._metrics.count_lost()

    async def _end(
        self, job: Claimed, outcome: Outcome, tenant: str = DEFAULT_TENANT, *, is_dead_letter: bool = False
    ) -> None:
        value = _rq_value(job, outcome)
        finished = Finished(job=job, outcome=outcome, return_value=value, is_dead_letter=is_dead_letter)
        self._count(job, outcome, tenant, accepted=await self._finish.call(finished))

    async def _end_unbegun(self, job: Claimed, outcome: Outcome, reason: RequeueReason) -> None:
        """End a job that the engine has not begun: it costs no attempt."""
        result = await self._call_requeue(job, job.queue, reason, outcome)
        self._count(job, outcome, DEFAULT_TENANT, accepted=result == "ended")

    async def _requeue(
        self, job: Claimed, target: str, reason: RequeueReason, last: Outcome, *, kept: Outcome | None = None
    ) -> None:
        result = await self._call_requeue(job, target, reason, last, kept)
        self._metrics.requeued(last.code or "").inc()
        if result == "ended":
            self.traces.ended(job, last)
            self._metrics.rq.add(last)
            self._metrics.tally.add(last)
            self._metrics.dead_lettered(last.code or "").inc()
        else:
            self.traces.requeued(job, last)
        log.info("job requeued", job_id=job.job_id, target=target, reason=last.code, result=result)

    async def _call_requeue(
        self, job: Claimed, target: str, reason: RequeueReason, last: Outcome, kept: Outcome | None = None
    ) -> str:
        return await until_reachable(
            lambda: self._queue.requeue(self._worker.name, job, target, reason=reason, last=last, kept=kept)
        )

    def _completed(self, job: Claimed, done: Executed, cost: float | None) -> Outcome:
        request, outcome = done.request, done.outcome
        return msgspec.structs.replace(
            outcome,
            tier=self._worker.tier,
            fence=job.fence,
            attempts=job.attempt - (not done.has_begun),
            decision=_decision(request, job),
            request_id=request.request_id if request else "",
            overflowed_from=job.tier if self._rises(job) > 0 else None,
            served_below_floor=self._rises(job) < 0,
            queue_ms=float(max(0, job.claimed_ms - job.enqueued_ms)),
            cost=cost,
        )

    def _rises(self, job: Claimed) -> int:
        """Return how many tiers above the job's queue this worker is; less than 0: below it."""
        return self._ladder.index(self._worker.tier) - self._ladder.index(job.tier)

    def _own_outcome(self, job: Claimed, cost: float | None, status: int, code: str, error: str) -> Outcome:
        return Outcome(
            state=State.FAILED,
            status=status,
            code=code,
            error=error,
            tier=self._worker.tier,
            attempts=job.attempt,
            cost=cost,
        )

    def _count(self, job: Claimed, outcome: Outcome, tenant: str, *, accepted: bool) -> None:
        if accepted:
            self._metrics.count_end(job, outcome, tenant, self.traces.ended(job, outcome))
            return
        self._metrics.count_lost()
        log.warning("outcome refused: the lease was lost", job_id=job.job_id)

    async def _finish_many(self, jobs: Sequence[Finished]) -> Sequence[bool]:
        """Store the first outcomes, for as long as it takes: the work is done, and the lease may still hold."""

        async def finish_first() -> Sequence[bool]:
            bundle = self._budget.first(jobs, finished_bytes)
            with self._budget.tried():
                return await self._queue.finish(self._worker.name, bundle)

        def log_failure(error: QueueUnreachableError) -> None:
            OUTAGE.warn("outcomes wait for Redis", jobs=len(jobs), error=str(error))

        return await until_reachable(finish_first, log_failure)


def _decision(request: Request | None, job: Claimed) -> Decision:
    """Return the decision on a job's request; where no policy made one, the floor is the tier of its queue."""
    decision = request.decision if request else UNDECIDED
    return decision if decision.floor else msgspec.structs.replace(decision, floor=job.tier)


def _rq_value(job: Claimed, outcome: Outcome) -> str:
    """Return the answer for `job.return_value()` of RQ's producers; jobs of the intake need no second copy."""
    if not job.is_rq or outcome.state is not State.FINISHED or outcome.answer is None:
        return ""
    return base64.b64encode(outcome.answer).decode()
