"""What becomes of a job after its execution: finish, give back, climb. Nothing here is cut short by a cancellation."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Sequence

import msgspec
import structlog

from bitladder.batching import Batcher
from bitladder.contract import NO_BODY, Chunk, Claimed, Emitted, Outcome, QueueName, State
from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls import Finished, RequeueReason, Unfit, finished_bytes
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import ByteBudget
from bitladder.settings.sections import Settings
from workers.chunks import Chunks
from workers.execute import Executed, Verdict, degenerate_in
from workers.metrics import Tally, WorkerMetrics

log = structlog.get_logger()
# A busy engine frees itself in its own time; without a pause its job would come straight back.
BUSY_PAUSE_S = 0.2
# What claim.lua says of an id whose record is gone.
NO_RECORD = "no_record"
# Ids that one claim's log lines name.
MAX_NAMED = 16
# A job that went back so often without having run may be one that this engine never takes: it goes up, where that is
# possible, before it keeps the others waiting for ever.
MAX_RETURNS = 8
# Jobs whose returns one worker remembers.
MAX_REMEMBERED = 10_000


class Settler:
    """Carries the ends of one worker's jobs to Redis, many at once, for as long as it takes."""

    def __init__(self, settings: Settings, model: str, tier: str, worker: str, queue: JobQueue) -> None:
        self._settings, self._model, self._tier, self._worker, self._queue = settings, model, tier, worker, queue
        self._price_per_hour = settings.model(model).tier(tier).price_per_hour
        self._ladder = settings.model(model).ladder
        self._finish: Batcher[Finished, bool] = Batcher(self._finish_many, most=256)
        self._emit: Batcher[tuple[str, Chunk], Emitted] = Batcher(self._emit_many, most=256)
        self._room = ByteBudget()  # of what one call carries
        self.metrics, self.tally = WorkerMetrics(model, tier), Tally()
        self._returns: dict[str, int] = {}  # by job: how often this engine was too busy to take it

    async def guarded(self, job: Claimed, done: Executed) -> Executed:
        """Let a degenerate answer climb; deliver it where nobody does better, or its tokens were seen already."""
        kind = degenerate_in(done)
        if kind is None:
            return done
        self.metrics.degenerate(kind).inc()
        is_last = job.attempt >= self._settings.queue.max_attempts
        climbs = not done.outcome.chunks and not is_last and await self._is_served_above(job)
        log.warning("degenerate answer", job_id=job.job_id, kind=kind, delivered=not climbs)
        if not climbs:
            return done
        outcome = msgspec.structs.replace(
            done.outcome,
            state=State.FAILED,
            status=502,
            body=NO_BODY,
            code="degenerate_output",
            error=f"the answer was degenerate: {kind}",
        )
        return msgspec.structs.replace(done, verdict=Verdict.ESCALATE, outcome=outcome)

    async def settle(self, job: Claimed, done: Executed, *, beside: int) -> None:
        """Do what the verdict says; `beside` is how many jobs shared the engine."""
        outcome = self._completed(job, done, beside)
        if done.verdict is Verdict.DEAD_LETTER:
            self.metrics.dead_lettered(outcome.code or "").inc()
            log.warning("job dead-lettered", job_id=job.job_id, code=outcome.code)
        if not done.has_begun:
            is_late = done.verdict is Verdict.FINISH
            await self._void(job, outcome, RequeueReason.EXPIRED if is_late else RequeueReason.REFUSED)
        elif done.verdict is Verdict.FINISH:
            await self._end(job, outcome)
        elif done.verdict is Verdict.DEAD_LETTER:
            await self._end(job, outcome, is_dead_letter=True)
        elif done.verdict is Verdict.SUSPECT:
            self.metrics.faults.inc()
            await self._requeue(job, job.queue, RequeueReason.CRASHED, outcome)
        elif done.verdict is Verdict.ESCALATE:
            self.metrics.faults.inc()
            await self._requeue(job, await self._one_up(job), RequeueReason.CHARGED, outcome)
        else:
            await asyncio.sleep(BUSY_PAUSE_S)
            target = await self._one_up(job) if self._is_stuck(job.job_id) else job.queue
            await self._requeue(job, target, RequeueReason.UNCHARGED, outcome)

    def _is_stuck(self, job_id: str) -> bool:
        """Count one more return of a job that the engine did not take; True when it was one too many."""
        returns = self._returns.pop(job_id, 0) + 1
        if returns >= MAX_RETURNS:
            return True
        self._returns[job_id] = returns
        if len(self._returns) > MAX_REMEMBERED:
            del self._returns[next(iter(self._returns))]  # the one that came back longest ago
        return False

    def left_out(self, unfit: Sequence[Unfit]) -> None:
        """Count ids that were in a list and do not run, and name some of them."""
        for one in unfit:
            (self.metrics.dropped if one.why == NO_RECORD else self.metrics.dead_lettered(one.why)).inc()
        for one in unfit[:MAX_NAMED]:
            log.warning("id dropped" if one.why == NO_RECORD else "job dead-lettered", job_id=one.job_id, code=one.why)
        if len(unfit) > MAX_NAMED:
            log.warning("ids dropped or dead-lettered", beside=len(unfit) - MAX_NAMED)

    async def cancelled(self, job: Claimed, *, has_begun: bool) -> None:
        """End a job that its client cancelled."""
        end = self._own_end(job, State.CANCELLED, 409, "cancelled", "the job was cancelled")
        if has_begun:
            await self._end(job, end)
        else:
            await self._void(job, msgspec.structs.replace(end, attempts=job.attempt - 1), RequeueReason.CANCELLED)

    async def drained(self, job: Claimed) -> None:
        """Hand on a job that this worker has no time left for."""
        last = self._own_end(job, State.FAILED, 503, "drained", "the worker was stopped")
        await self._requeue(job, job.queue, RequeueReason.UNCHARGED, last)

    async def broken(self, job: Claimed, *, has_begun: bool) -> None:
        """Hand on a job that this worker has a defect with: kept, its lease would be renewed for ever."""
        last = self._own_end(job, State.FAILED, 500, "worker_defect", "the worker broke on this job")
        reason = RequeueReason.CHARGED if has_begun else RequeueReason.UNBEGUN
        await self._requeue(job, await self._one_up(job), reason, last)

    def chunks(self, job: Claimed) -> Chunks:
        """Return the way of a stream's chunks to its readers."""
        return Chunks(job, lambda job_id, chunk: self._emit.call((job_id, chunk)), self.metrics)

    async def _end(self, job: Claimed, outcome: Outcome, *, is_dead_letter: bool = False) -> None:
        done = Finished(job=job, outcome=outcome, return_value=_rq_value(job, outcome), is_dead_letter=is_dead_letter)
        accepted = await self._finish.call(done)
        self._count(job, outcome, accepted=accepted)

    async def _void(self, job: Claimed, outcome: Outcome, reason: RequeueReason) -> None:
        """End a job that the engine has not begun: it costs no attempt."""
        result = await self._requeue_until_reachable(job, job.queue, reason=reason, last=outcome)
        self._count(job, outcome, accepted=result == "ended")

    async def _requeue(self, job: Claimed, target: str, reason: RequeueReason, last: Outcome) -> None:
        result = await self._requeue_until_reachable(job, target, reason=reason, last=last)
        self.metrics.returned(last.code or "").inc()
        if result == "ended":
            self.tally.add(last)
            self.metrics.dead_lettered(last.code or "").inc()
        log.info("job requeued", job_id=job.job_id, target=target, reason=last.code, result=result)

    async def _requeue_until_reachable(self, job: Claimed, target: str, *, reason: RequeueReason, last: Outcome) -> str:
        while True:
            try:
                return await self._queue.requeue(self._worker, job, target, reason=reason, last=last)
            except QueueUnreachableError:
                await _pause()

    async def _one_up(self, job: Claimed) -> str:
        """Return the queue one tier above this worker's, or the job's own where nobody above would serve it."""
        if not await self._is_served_above(job):
            return job.queue
        return str(QueueName(self._model, self._above(job)[0], job.lane, job.ceiling))

    def _above(self, job: Claimed) -> Sequence[str]:
        """Return the higher tiers that may have the job.

        The ceiling is the queue's, not the request's: the queue is one of ours, the request is a producer's word.
        """
        highest = self._ladder.index(job.ceiling) if job.ceiling else len(self._ladder) - 1
        return self._ladder[self._ladder.index(self._tier) + 1 : highest + 1]

    async def _is_served_above(self, job: Claimed) -> bool:
        """Return whether a worker lives on a higher tier that may have the job; asked for rare cases only."""
        above = self._above(job)
        try:
            live = (await self._queue.depths(self._model)).live if above else {}
        except QueueUnreachableError:
            return False
        return any(live.get(tier) for tier in above)

    def _completed(self, job: Claimed, done: Executed, beside: int) -> Outcome:
        request, outcome = done.request, done.outcome
        share = self._price_per_hour * outcome.run_ms / 3_600_000 / max(1, beside)
        return msgspec.structs.replace(
            outcome,
            tier=self._tier,
            fence=job.fence,
            attempts=job.attempt - (not done.has_begun),
            floor=(request.floor if request else None) or job.tier,
            reason=request.reason if request else None,
            entropy=request.entropy if request else None,
            request_id=request.request_id if request else "",
            overflowed_from=job.tier if job.tier != self._tier else None,
            queue_ms=float(max(0, job.claimed_ms - job.enqueued_ms)),
            cost=round(share, 9),
        )

    def _own_end(self, job: Claimed, state: State, status: int, code: str, error: str) -> Outcome:
        return Outcome(state=state, status=status, code=code, error=error, tier=self._tier, attempts=job.attempt)

    def _count(self, job: Claimed, outcome: Outcome, *, accepted: bool) -> None:
        if not accepted:
            self.metrics.fenced.inc()
            log.warning("outcome refused", job_id=job.job_id, reason="the lease was lost")
            return
        self.tally.add(outcome)
        self.metrics.ended(outcome.state).inc()
        self.metrics.queue_wait.observe(outcome.queue_ms / 1000)
        self.metrics.run.observe(outcome.run_ms / 1000)
        self.metrics.tokens("prompt").inc(outcome.usage.prompt_tokens)
        self.metrics.tokens("completion").inc(outcome.usage.completion_tokens)
        if outcome.ttft_ms is not None:
            self.metrics.ttft.observe(outcome.ttft_ms / 1000)
        if outcome.overflowed_from:
            self.metrics.overflowed(outcome.overflowed_from).inc()

    async def _finish_many(self, jobs: Sequence[Finished]) -> Sequence[bool]:
        """Hand the first outcomes in, for as long as it takes: the work is done, and the lease may still hold."""
        while True:
            part = self._room.first(jobs, finished_bytes)
            try:
                with self._room.tried():
                    return await self._queue.finish(self._worker, part)
            except QueueUnreachableError as error:
                log.warning("outcomes wait for redis", jobs=len(jobs), error=str(error))
                await _pause()

    async def _emit_many(self, chunks: Sequence[tuple[str, Chunk]]) -> Sequence[Emitted]:
        while True:
            part = self._room.first(chunks, lambda item: len(item[1].data))
            try:
                with self._room.tried():
                    return await self._queue.emit(self._worker, part)
            except QueueUnreachableError:
                await _pause()


async def _pause() -> None:
    await asyncio.sleep(random.uniform(0.2, 1))  # noqa: S311  (jitter, so that workers do not come back together)


def _rq_value(job: Claimed, outcome: Outcome) -> str:
    """Return the answer for `job.return_value()` of RQ's producers; the intake's jobs need no second copy."""
    if not job.is_rq or outcome.state is not State.FINISHED or outcome.answer is None:
        return ""
    return base64.b64encode(outcome.answer).decode()
