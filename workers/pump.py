"""claim -> execute -> finish, for one tier: as many jobs in flight as the engine can batch. READ THIS FIRST.

One loop claims, one task runs each job, one batcher carries outcomes to Redis and one the pieces of streams. The
lease thread (lease.py) renews what is held and says which jobs were lost or cancelled. A drain stops the claiming,
lets jobs finish for the grace time, and gives the rest back without charging an attempt.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import secrets
import time
from collections.abc import Sequence

import msgspec
import structlog
from redis.exceptions import RedisError

from dispatcher.batching import Batcher
from dispatcher.contract import Claimed, Outcome, Request, State, queue_name
from dispatcher.errors import EngineError, QueueUnreachableError
from dispatcher.queue.commands import Finished
from dispatcher.queue.connection import connect
from dispatcher.queue.job_queue import JobQueue
from dispatcher.queue.plan import claim_plan
from dispatcher.sections import Settings
from workers.control import Control
from workers.engines.base import Engine
from workers.execute import Executed, Verdict, execute
from workers.lease import LeaseKeeper
from workers.metrics import WorkerMetrics
from workers.slots import Slots

log = structlog.get_logger()
# How often the engine's load and health are looked at.
LOAD_EVERY_S = 1.0
# Longest pause between two tries to start an engine that does not start.
MOST_PAUSE_S = 60.0


class Pump:
    """Moves the jobs of one tier through one engine."""

    def __init__(self, settings: Settings, model: str, tier: str, engine: Engine) -> None:
        self.settings, self.model, self.tier, self.engine = settings, model, tier, engine
        self._tier = settings.model(model).tier(tier)
        # A name of its own for every start: nothing a former process did can pass for this one's.
        self.worker = f"{model}.{tier}.{secrets.token_hex(6)}"
        self.queue = JobQueue(connect(settings.redis), settings)
        self._waker = connect(settings.redis, wait_s=settings.worker.block_s)
        self._plan = claim_plan(settings, model, tier)
        self._slots = Slots(settings.worker.min_slots, self._tier.slots)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._jobs: dict[str, Claimed] = {}
        self._settling: set[str] = set()  # executed; what becomes of them is on its way to Redis
        self._reasons: dict[str, str] = {}  # why a task is being cancelled
        self._finish: Batcher[Finished, bool] = Batcher(self._finish_many)
        self._emit: Batcher[tuple[str, int, bytes], bool] = Batcher(self._emit_many, most=256)
        self._freed = asyncio.Event()
        self._draining = asyncio.Event()
        self._labels = (model, tier)
        self.metrics = WorkerMetrics()
        self._loop = asyncio.get_running_loop()
        self._control = Control(settings.redis, self.worker, lambda job_id: self._abort(job_id, "cancelled"))
        self.leases = LeaseKeeper(settings, model, tier, self.worker, held=lambda: list(self._jobs), drop=self._dropped)

    async def run(self) -> None:
        """Claim and run until drain() is called, then drain."""
        self.leases.start()
        beside = [asyncio.create_task(self._watch_engine()), asyncio.create_task(self._control.listen())]
        try:
            while not self._draining.is_set():
                await self._step()
        finally:
            for task in beside:
                task.cancel()
            await self._drain()
            self.leases.stop()
            await self.engine.stop()
            await self.queue.client.aclose()
            await self._waker.aclose()

    def drain(self) -> None:
        """Stop claiming; a second call gives back at once what still runs."""
        if self._draining.is_set():
            for task in self._running.values():
                task.cancel()
        self._draining.set()
        self._freed.set()

    async def _step(self) -> None:
        free = self._slots.free(len(self._running)) if self.leases.is_ready else 0
        self.metrics.slots.labels(*self._labels).set(self._slots.limit)
        if not free:
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), self.settings.worker.block_s)
            return
        try:
            jobs, expired = await self.queue.claim(self.worker, self.model, self.tier, self._plan, free)
            self.metrics.ended.labels(*self._labels, State.EXPIRED).inc(expired)
            for job in jobs:
                self._begin(job)
            if not jobs:
                await self._until_pushed()
        except QueueUnreachableError as error:
            log.warning("claim failed", error=str(error))
            await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311  (jitter)

    async def _until_pushed(self) -> None:
        """Sleep until something is pushed, or until it is time to look for what nobody announces."""
        with contextlib.suppress(RedisError, OSError):
            await self._waker.blpop([f"bl:wake:{self.model}:{self.tier}"], timeout=self.settings.worker.block_s)

    def _begin(self, job: Claimed) -> None:
        self._jobs[job.job_id] = job
        task = asyncio.create_task(self._handle(job), name=job.job_id)
        self._running[job.job_id] = task
        task.add_done_callback(lambda _: self._ended(job.job_id))
        self.metrics.in_flight.labels(*self._labels).set(len(self._running))

    def _ended(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._reasons.pop(job_id, None)
        self._settling.discard(job_id)
        self._running.pop(job_id, None)
        self.metrics.in_flight.labels(*self._labels).set(len(self._running))
        self._freed.set()

    async def _handle(self, job: Claimed) -> None:
        async def on_piece(piece: bytes) -> None:
            if not await self._emit.call((job.job_id, job.fence, piece)):
                self._reasons[job.job_id] = "lease lost"
                raise asyncio.CancelledError

        try:
            done = await execute(job, self.engine, on_piece, now_ms=job.claimed_ms)
        except asyncio.CancelledError:
            await self._interrupted(job, self._reasons.pop(job.job_id, "drained"))
            return
        except Exception:
            # A defect of ours must not keep the job: the lease would be renewed for as long as this worker lives.
            log.exception("job broke the worker", job_id=job.job_id)
            last = Outcome(state=State.FAILED, status=500, code="worker_defect", error="the worker broke on this job")
            await self._give_back(job, self._one_up(job, None), charge=True, last=last, reason="worker_defect")
            return
        self._settling.add(job.job_id)
        await self._settle(job, done)

    async def _settle(self, job: Claimed, done: Executed) -> None:
        outcome = self._completed(job, done)
        if done.verdict is Verdict.FINISH:
            value = _rq_value(done.request, outcome)
            accepted = await self._finish.call(Finished(job=job, outcome=outcome, return_value=value))
            self._count(job, outcome, accepted=accepted)
            return
        climb = done.verdict is Verdict.CLIMB
        if climb:
            self.metrics.faults.labels(*self._labels).inc()
        else:
            # A busy engine frees itself in its own time; without a pause the job would come straight back.
            await asyncio.sleep(0.2)
        target = self._one_up(job, done.request) if climb else job.queue
        await self._give_back(job, target, charge=climb, last=outcome, reason=outcome.code or "")

    async def _interrupted(self, job: Claimed, reason: str) -> None:
        """Handle a task that was cancelled: by its client, by a lost lease, or by the drain."""
        if reason == "cancelled":
            outcome = Outcome(
                state=State.CANCELLED,
                status=409,
                code="cancelled",
                error="the job was cancelled",
                tier=self.tier,
                worker=self.worker,
                attempts=job.attempt,
            )
            accepted = await self._finish.call(Finished(job=job, outcome=outcome))
            self._count(job, outcome, accepted=accepted)
        elif reason == "lease lost":
            self.metrics.fenced.labels(*self._labels).inc()
        else:
            last = Outcome(state=State.FAILED, status=503, code="drained", error="the worker was stopped")
            await self._give_back(job, job.queue, charge=False, last=last, reason="drained")

    async def _give_back(self, job: Claimed, target: str, *, charge: bool, last: Outcome, reason: str) -> None:
        while True:
            try:
                word = await self.queue.give_back(self.worker, job, target, charge=charge, last=last)
            except QueueUnreachableError:
                await asyncio.sleep(random.uniform(0.2, 1))  # noqa: S311  (jitter)
                continue
            self.metrics.returned.labels(*self._labels, reason).inc()
            log.info("job given back", job_id=job.job_id, target=target, reason=reason, result=word)
            return

    def _one_up(self, job: Claimed, request: Request | None) -> str:
        """Return the queue one tier above this worker's, or the job's own where its ceiling is reached."""
        ladder = self.settings.model(self.model).ladder
        ceiling = request.ceiling if request else None
        highest = ladder.index(ceiling) if ceiling else len(ladder) - 1
        rank = min(ladder.index(self.tier) + 1, highest)
        lane = job.queue.split(":")[2]
        return queue_name(self.model, ladder[max(rank, ladder.index(job.tier))], lane, ceiling)

    def _completed(self, job: Claimed, done: Executed) -> Outcome:
        request = done.request
        return msgspec.structs.replace(
            done.outcome,
            tier=self.tier,
            worker=self.worker,
            attempts=job.attempt,
            floor=(request.floor if request else None) or job.tier,
            reason=request.reason if request else None,
            entropy=request.entropy if request else None,
            request_id=request.request_id if request else "",
            overflowed_from=job.tier if job.tier != self.tier else None,
            queue_ms=float(max(0, job.claimed_ms - job.enqueued_ms)),
            cost=self._cost(done.outcome.run_ms),
        )

    def _cost(self, run_ms: float) -> float:
        """Return the job's share of the worker's price while it ran: those that ran beside it pay theirs."""
        return round(self._tier.price_per_hour * run_ms / 3_600_000 / max(1, len(self._running)), 9)

    def _count(self, job: Claimed, outcome: Outcome, *, accepted: bool) -> None:
        if not accepted:
            self.metrics.fenced.labels(*self._labels).inc()
            log.warning("outcome refused", job_id=job.job_id, reason="the lease was lost")
            return
        self.metrics.ended.labels(*self._labels, outcome.state).inc()
        self.metrics.queue_wait.labels(*self._labels).observe(outcome.queue_ms / 1000)
        self.metrics.run.labels(*self._labels).observe(outcome.run_ms / 1000)
        self.metrics.tokens.labels(*self._labels, "prompt").inc(outcome.usage.prompt_tokens)
        self.metrics.tokens.labels(*self._labels, "completion").inc(outcome.usage.completion_tokens)
        if outcome.ttft_ms is not None:
            self.metrics.ttft.labels(*self._labels).observe(outcome.ttft_ms / 1000)
        if outcome.overflowed_from:
            self.metrics.overflowed.labels(*self._labels, outcome.overflowed_from).inc()

    async def _finish_many(self, jobs: Sequence[Finished]) -> Sequence[bool]:
        """Hand outcomes in, for as long as it takes: the work is done, and the lease may still hold."""
        while True:
            try:
                return await self.queue.finish(self.worker, jobs)
            except QueueUnreachableError as error:
                log.warning("outcomes wait for redis", jobs=len(jobs), error=str(error))
                await asyncio.sleep(random.uniform(0.2, 1))  # noqa: S311  (jitter)

    async def _emit_many(self, pieces: Sequence[tuple[str, int, bytes]]) -> Sequence[bool]:
        while True:
            try:
                return await self.queue.emit(self.worker, pieces)
            except QueueUnreachableError:
                await asyncio.sleep(random.uniform(0.2, 1))  # noqa: S311  (jitter)

    def _dropped(self, lost: list[str], cancelled: list[str]) -> None:
        """Hand lost and cancelled jobs from the lease thread to the loop."""
        for ids, reason in ((lost, "lease lost"), (cancelled, "cancelled")):
            for job_id in ids:
                self._loop.call_soon_threadsafe(self._abort, job_id, reason)

    def _abort(self, job_id: str, reason: str) -> None:
        task = self._running.get(job_id)
        if task and job_id not in self._settling:
            self._reasons[job_id] = reason
            task.cancel()

    def _set_ready(self, is_ready: bool) -> None:
        self.metrics.ready.labels(*self._labels).set(is_ready)
        if is_ready != self.leases.is_ready:
            self.leases.is_ready = is_ready
            self._freed.set()
            log.info("worker ready" if is_ready else "worker not ready", worker=self.worker, tier=self.tier)
            with contextlib.suppress(RedisError, OSError):
                self.leases.renew()

    async def _watch_engine(self) -> None:
        """Start the engine, follow its load, start it again when it is gone."""
        failures = 0
        while True:
            try:
                healthy = await self.engine.is_healthy()
                if not healthy:
                    self._set_ready(is_ready=False)
                    healthy = await self._started()
                failures = 0 if healthy else failures + 1
                self._set_ready(healthy)
                self._slots.adapt(await self.engine.load(), len(self._running))
            except Exception:
                # Without this task nobody would notice that the engine is gone.
                log.exception("engine watch broke", tier=self.tier)
                failures += 1
            await asyncio.sleep(min(MOST_PAUSE_S, LOAD_EVERY_S * 2**failures))

    async def _started(self) -> bool:
        start = time.monotonic()
        try:
            await self.engine.start()
        except EngineError as error:
            log.error("engine did not start", tier=self.tier, error=str(error))
            return False
        log.info("engine ready", tier=self.tier, start_s=round(time.monotonic() - start, 1))
        return True

    async def _drain(self) -> None:
        log.info("draining", worker=self.worker, in_flight=len(self._running))
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self.settings.worker.drain_grace_s)
        rest = list(self._running.values())
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=self.settings.worker.drain_grace_s + 1)
        log.info("drained", worker=self.worker, given_back=len(rest))


def _rq_value(request: Request | None, outcome: Outcome) -> str:
    """Return the answer for `job.return_value()` of RQ's producers; the intake's jobs need no second copy."""
    if request is None or request.request_id or outcome.state is not State.FINISHED or outcome.answer is None:
        return ""
    return base64.b64encode(outcome.answer).decode()
