"""claim -> execute -> settle, for one tier: as many jobs in flight as the engine can batch. READ THIS FIRST.

One loop claims, one task runs each job, and settle.py carries what becomes of it to Redis. Beside them: a thread that
renews the leases and says which jobs were lost or cancelled (lease.py), a task that hears of cancellations at once
(control.py), and one that watches the engine (engine_watch.py). A drain stops the claiming, lets jobs finish for the
grace time, and gives the rest back without charging an attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from enum import StrEnum

import structlog
from redis.exceptions import RedisError

from bitladder.contract import Claimed, State
from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls import Claims
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue.sweeping import sweep_for_ever
from bitladder.settings.sections import Settings
from bitladder.supervision import Background, in_thread
from workers.begun import Begun
from workers.control import Control
from workers.engine_health.blame import blamed
from workers.engine_health.watch import EngineWatch
from workers.engines.base import CLAIM, Engine, Load
from workers.execute import Executed, Verdict, execute, expired_waiting, with_chunks
from workers.isolation import Ward
from workers.lease import LeaseKeeper
from workers.settle import Settler
from workers.slots import Slots

log = structlog.get_logger()
# Steps of the loop that new jobs have before the next claim is prepared: their requests reach the engine, and what an
# engine knows at once reaches Redis, before half a millisecond of work for jobs that may not be there.
FIRST_STEPS = 4
# How soon a worker notices `rq resume`. Nobody wakes it for that.
SUSPENDED_LOOK_S = 0.25


class Interruption(StrEnum):
    """Why a running job was stopped."""

    CANCELLED = "cancelled"  # by its client
    LOST = "lease lost"  # somebody else has it now
    DRAINED = "drained"
    BROKEN = "worker defect"


class Pump:
    """Moves the jobs of one tier through one engine."""

    def __init__(self, settings: Settings, model: str, tier: str, engine: Engine) -> None:
        self.settings, self.model, self.tier, self.engine = settings, model, tier, engine
        # A name of its own for every start: nothing a former process did can pass for this one's.
        self.worker = f"{model}.{tier}.{secrets.token_hex(6)}"
        self.queue = JobQueue(connect(settings.redis), settings)
        self._waker = connect(settings.redis, wait_s=settings.worker.block_s)
        self._plan = claim_plan(settings, model, tier)
        self._ward = Ward()
        self._slots = Slots(settings.worker.min_slots, settings.model(model).tier(tier).slots)
        self._settler = Settler(settings, model, tier, self.worker, self.queue)
        self.metrics = self._settler.metrics
        self._running: dict[str, asyncio.Task[None]] = {}
        self.metrics.in_flight.set_function(lambda: len(self._running))
        self._begun = Begun(self.queue, self.worker)
        self._in_engine: set[asyncio.Task[None]] = set()  # what they run has reached the engine
        self._settling: set[asyncio.Task[None]] = set()  # executed; what becomes of it is on its way to Redis
        self._reasons: dict[asyncio.Task[None], Interruption] = {}  # why a task is being cancelled
        self._freed, self._draining = asyncio.Event(), asyncio.Event()
        self._is_suspended = False  # whether somebody said `rq suspend`
        self._is_empty = False  # whether the last claim brought fewer jobs than it might
        self._loop = asyncio.get_running_loop()
        self.background = Background(self._review)
        self._control = Control(settings.redis, self.worker, lambda job_id: self._abort(job_id, Interruption.CANCELLED))
        self._watch = EngineWatch(
            engine,
            settings.worker,
            self.metrics,
            self._set_engine_ready,
            self._adapt,
            blamed=lambda suspects: blamed(self.queue, tier, suspects),
        )
        self._watch.traffic.on_pause = self._slots.back_off
        self._is_engine_ready = False
        self.leases = LeaseKeeper(
            settings,
            model,
            tier,
            self.worker,
            held=lambda: list(self._running),
            drop=self._dropped,
            tally=self._settler.tally.as_words,
        )

    async def run(self) -> None:
        """Claim and run until drain() is called, then drain."""
        leasing = self.background.start("leases", lambda: in_thread("leases", self.leases.run))
        watching = self.background.start("engine watch", self._watch.run)
        self.background.start("control channel", self._control.listen)
        self.background.start("sweep", lambda: sweep_for_ever(self.queue, [self.model]))
        try:
            while not self._draining.is_set():
                await self._step()
        finally:
            watching.cancel()
            await self._drain()
            leasing.cancel()
            await self._begun.stop()
            await asyncio.to_thread(self.leases.stop)
            await self.background.stop()
            await self.engine.stop()
            await self._control.aclose()
            await self.queue.client.aclose()
            await self._waker.aclose()

    def drain(self) -> None:
        """Stop claiming; a second call gives back at once what still runs."""
        if self._draining.is_set():
            self._interrupt_all()
        self._draining.set()
        self._freed.set()

    async def _step(self) -> None:
        paused_s, block_s = self._watch.traffic.paused_s(), self.settings.worker.block_s
        is_open = self.leases.is_ready and not self._ward.is_closed and not paused_s
        free = self._slots.free(len(self._running)) if is_open else 0
        if not free:
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), min(block_s, paused_s or block_s))
            return
        try:
            claims = await self._claim(free)
        except QueueUnreachableError as error:
            log.warning("claim failed", error=str(error))
            await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311  (jitter)
            return
        if claims.is_suspended != self._is_suspended:
            self._note_suspension(claims.is_suspended)
        if self._is_suspended:
            await asyncio.sleep(SUSPENDED_LOOK_S)
            return
        self.metrics.ended(State.EXPIRED).inc(claims.expired)
        self._settler.left_out(claims.unfit)
        for job in claims.jobs:
            self._begin(job)
        self._is_empty = len(claims.jobs) < free and not claims.is_cut  # these were all; a push has left a token
        for _ in range(FIRST_STEPS):
            await asyncio.sleep(0)

    async def _claim(self, free: int) -> Claims:
        """Claim at once where more may wait; else as soon as something is pushed, or to see what nobody announces."""
        what, asked_s = (self.worker, self.model, self.tier, self._plan, free), time.monotonic()
        is_idle = self._is_empty and not self._is_suspended
        with self.leases.claiming():
            claims = await (self.queue.claim_when_pushed(self._waker, *what) if is_idle else self.queue.claim(*what))
        self.leases.clock.heard(claims.now_ms, asked_s)
        return claims

    def _note_suspension(self, is_suspended: bool) -> None:
        self._is_suspended = is_suspended
        self.metrics.suspended.set(is_suspended)
        log.info("claims suspended" if is_suspended else "claims resumed", worker=self.worker, tier=self.tier)

    def _begin(self, job: Claimed) -> None:
        self._abort(job.job_id, Interruption.LOST)  # an earlier claim of the same job, whose lease was lost
        task = asyncio.create_task(self._handle(job), name=job.job_id)
        self._running[job.job_id] = task
        task.add_done_callback(lambda task: self._ended(job.job_id, task))

    def _ended(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._reasons.pop(task, None)
        self._settling.discard(task)
        self._in_engine.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # Redis still holds it in this worker's name, and the next renewals find that it is nobody's.
            log.error("the end of a job was lost", job_id=job_id, exc_info=error)
        if self._running.get(job_id) is task:
            del self._running[job_id]
            self._begun.forget(job_id)
        self._freed.set()

    async def _handle(self, job: Claimed) -> None:
        CLAIM.set(job)
        done, reason, task = None, Interruption.BROKEN, _this_task()
        try:
            done = await self._execute(job)
        except asyncio.CancelledError:
            reason = self._reasons.get(task, Interruption.DRAINED)
        except Exception:
            log.exception("job broke the worker", job_id=job.job_id)
        # From here on nothing may stop the task: what has become of the job must reach Redis.
        self._settling.add(task)
        has_begun = task in self._in_engine
        if done is not None:
            await self._settler.settle(job, done, beside=len(self._running))
        elif reason is Interruption.CANCELLED:
            await self._settler.cancelled(job, has_begun=has_begun)
        elif reason is Interruption.DRAINED:
            await self._settler.drained(job)
        elif reason is Interruption.BROKEN:
            await self._settler.broken(job, has_begun=has_begun)
        else:
            self.metrics.fenced.inc()

    async def _execute(self, job: Claimed) -> Executed:
        chunks, task = self._settler.chunks(job), _this_task()

        async def on_chunk(data: bytes) -> None:
            if not await chunks.put(data):
                self._reasons[task] = Interruption.LOST
                raise asyncio.CancelledError

        def on_begin() -> None:
            self._in_engine.add(task)
            self._begun.note(job.job_id)

        engine, signer, clock = self._watch.traffic.of(job), self.queue.signer, self.leases.clock
        if not await self._ward.entered(job.suspicion, clock.seconds_until(job.deadline_ms)):
            return expired_waiting()
        try:
            done = await execute(job, engine, on_chunk, signer, clock=clock, on_begin=on_begin)
        finally:
            self._ward.leave()
        if done.verdict is Verdict.RETURN:
            self._begun.note(job.job_id, has_begun=False)
        done = with_chunks(done, chunks.count)
        done = await self._settler.guarded(job, done) if self.settings.worker.guard else done
        if done.unsent and done.verdict is Verdict.FINISH:
            await on_chunk(done.unsent)
        return with_chunks(done, chunks.count)

    def _dropped(self, lost: list[str], cancelled: list[str]) -> None:
        """Hand lost and cancelled jobs from the lease thread to the loop."""
        for ids, reason in ((lost, Interruption.LOST), (cancelled, Interruption.CANCELLED)):
            for job_id in ids:
                self._loop.call_soon_threadsafe(self._abort, job_id, reason)

    def _abort(self, job_id: str, reason: Interruption) -> None:
        task = self._running.get(job_id)
        if task and task not in self._settling:
            self._reasons.setdefault(task, reason)
            task.cancel()

    def _interrupt_all(self) -> None:
        for job_id in list(self._running):
            self._abort(job_id, Interruption.DRAINED)

    async def _set_engine_ready(self, is_ready: bool) -> None:
        self._is_engine_ready = is_ready
        await self._review_readiness()

    def _review(self) -> None:
        """Follow the background tasks: a worker that lacks one claims nothing, and does not count as live."""
        self.background.once("readiness", self._review_readiness())

    async def _review_readiness(self) -> None:
        is_ready = self._is_engine_ready and not self.background.down and not self._draining.is_set()
        if is_ready != self.leases.is_ready:
            await self._set_ready(is_ready)

    async def _set_ready(self, is_ready: bool) -> None:
        self.metrics.ready.set(is_ready)
        self.leases.is_ready, self._is_empty = is_ready, False
        log.info("worker ready" if is_ready else "worker not ready", worker=self.worker, tier=self.tier)
        with contextlib.suppress(RedisError, OSError):
            await asyncio.to_thread(self.leases.renew)
        self._freed.set()

    def _adapt(self, load: Load) -> None:
        self._slots.adapt(load, len(self._running))
        self.metrics.slots.set(self._slots.limit)

    async def _drain(self) -> None:
        log.info("draining", worker=self.worker, in_flight=len(self._running))
        await self._set_ready(False)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self.settings.worker.drain_grace_s)
        given_back = len(self._running)
        self._interrupt_all()
        if self._running:
            # A lease is the longest that handing in can make sense.
            await asyncio.wait(self._running.values(), timeout=self.settings.queue.lease_s)
        log.info("drained", worker=self.worker, given_back=given_back)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task  # noqa: S101  (a job is handled in a task)
    return task
