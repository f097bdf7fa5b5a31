"""claim -> execute -> settle, for one tier: as many jobs in flight as the engine can batch. READ THIS FIRST.

One loop claims (claiming.py). One task handles each job (handling/job_handler.py): it executes the job to a verdict
(execute.py) and carries that to Redis (handling/settle.py). Beside them run a thread that renews the leases and tells
which jobs were lost or cancelled (lease.py), a task that hears of cancellations at once (control.py), and a task that
watches the engine (engine_health/watch.py). A drain stops the claiming, lets jobs finish for the grace time, and
requeues the others with no attempt counted. An operator orders one from anywhere (docs/operating/steering.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from bitladder.errors import QueueUnreachableError
from bitladder.logs.setup import name_process
from bitladder.process.supervision import Background, in_thread
from bitladder.queue.calls.steering import DrainOrder
from bitladder.queue.calls.worker_report import WorkerReport
from bitladder.queue.checks.server_check import check_writes
from bitladder.queue.checks.server_watch import ServerWatch
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue.upkeep.sweeping import sweep_for_ever
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from workers.claiming import Claimer
from workers.control import ControlChannel
from workers.engine_health.blame import find_blame
from workers.engine_health.tier_health import TierHealth
from workers.engine_health.traffic import Traffic
from workers.engine_health.watch import EngineWatch
from workers.engines.base import Engine, EngineLoad
from workers.execute import Executor
from workers.handling.begun import BegunReporter
from workers.handling.cascading import judge_of
from workers.handling.chunks import ChunkSender
from workers.handling.higher_tiers import HigherTiers
from workers.handling.job_handler import JobHandler
from workers.handling.job_tasks import Interruption, JobTask, JobTasks
from workers.handling.job_traces import JobTraces
from workers.handling.settle import Settler
from workers.handling.yielding import BatchYield
from workers.identity import Identity
from workers.isolation import Isolation
from workers.lease import LeaseKeeper
from workers.metrics.worker_metrics import WorkerMetrics
from workers.slots import Slots

if TYPE_CHECKING:
    from bitladder.process.tracing.spans import Spans

log = structlog.get_logger()
# Steps of the event loop that new jobs have before the next claim is prepared. Without any, a job reaches its engine
# 106 us after its claim, with one 34 us, with four 31 us. Four also let a job that ends at once be settled first.
FIRST_STEPS = 4
# Of so many of the last jobs a claim knows about how long they took.
_SMOOTHED_OVER = 8


class Pump:
    """Moves the jobs of one tier through one engine."""

    is_kept_idle = is_dismissed = False  # by an operator's order; dismissed: the process ends

    def __init__(
        self, settings: Settings, model: str, tier: str, engine: Engine, *, spans: Spans | None = None
    ) -> None:
        self.settings, self.engine = settings, engine
        self.identity = identity = Identity.new(model, tier)
        name_process(**identity.log_fields())
        self.live = LiveSettings(settings)
        self.queue = queue = JobQueue(connect(settings.redis), self.live)
        self.metrics = metrics = WorkerMetrics(model, tier)
        self._loop = asyncio.get_running_loop()
        self._is_engine_ready, self._freed, self._draining = False, asyncio.Event(), asyncio.Event()
        self._slots = Slots(settings.worker.min_slots, settings.model(model).tier(tier).slots)
        self.live.subscribe(self._prepare_slots)
        self._traffic = Traffic(engine, metrics, settings.worker.hang_s, on_pause=self._slots.back_off)
        self._begun = BegunReporter(queue, identity.name)
        self.leases = LeaseKeeper(
            settings,
            model,
            tier,
            identity.name,
            held=lambda: self._tasks.fences(),
            drop=self._drop,
            tally=metrics.rq.as_argument,
            on_reaped=metrics.tally.add_lost,
            order=lambda text: self._loop.call_soon_threadsafe(self._obey, text),
        )
        metrics.clock = self.leases.clock
        self._health = TierHealth(queue, identity, self._report)
        higher = HigherTiers(queue, identity)
        can_escalate = higher.can_take if settings.worker.check_output else None
        judge = judge_of(settings, identity, higher, self.leases.clock, metrics)
        executor = Executor(queue.signer, self.leases.clock, can_escalate, judge)
        settler = Settler(queue, identity, metrics, higher, self._health.note, JobTraces(identity, metrics, spans))
        chunks = ChunkSender(queue, identity.name, metrics)
        self._isolation, self._ledger = Isolation(), settler.ledger
        self._claimer = Claimer(queue, identity, self.leases, self._health, metrics, self._ledger.may_overflow)
        self._handler = JobHandler(executor, self._isolation, self._traffic, settler, chunks, self._begun)
        self._tasks = JobTasks(self._handle_timed, self._job_ended)
        metrics.in_flight.set_function(lambda: len(self._tasks))
        self.background = Background(self._review)
        self._server = ServerWatch(lambda: check_writes(queue.client, settings.redis), self._review)
        self._control = ControlChannel(settings.redis, identity.name, self._cancel, self._renew_soon)

    async def run(self) -> None:
        """Claim and run until drain() is called, then drain."""
        watch = EngineWatch(
            self._traffic,
            self.settings.worker,
            self.metrics,
            self._set_engine_ready,
            self._adapt,
            lambda attempts: find_blame(self.queue, self.identity.tier, attempts),
        )
        leasing = self.background.start("leases", lambda: in_thread("leases", self.leases.run))
        watching = self.background.start("engine watch", watch.run)
        self.background.start("tier health", self._health.run)
        self.background.start("control channel", self._control.listen)
        self.background.start("redis watch", self._server.run)
        costing = self.background.start("costs", self._ledger.run)
        if self.settings.worker.batch_yields:
            batch_yield = BatchYield(self.queue, self.identity, self._tasks, self._is_full)
            self.background.start("batch yield", batch_yield.run)
        self.background.start("sweep", lambda: sweep_for_ever(self.queue, [self.identity.model]))
        try:
            while not self._draining.is_set():
                await self._step()
        finally:
            watching.cancel()
            await self._drain()
            leasing.cancel()
            costing.cancel()
            with contextlib.suppress(QueueUnreachableError):
                await self._ledger.send()
            await self._begun.stop()
            await asyncio.to_thread(self.leases.stop)
            await self.background.stop()
            await self.engine.stop()
            await self._control.aclose()
            await self.queue.client.aclose()
            await self._claimer.aclose()

    def drain(self) -> None:
        """Stop claiming; a second call requeues at once what still runs."""
        if self._draining.is_set():
            self._tasks.interrupt_all(Interruption.DRAINED)
        self._draining.set()
        self._freed.set()

    async def _step(self) -> None:
        paused_s, block_s = self._traffic.paused_s(), self.settings.worker.block_s
        may_claim = self.leases.is_ready and not self._isolation.is_active and not paused_s
        free = self._slots.free(len(self._tasks)) if may_claim else 0
        if not free:
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), min(block_s, paused_s or block_s))
            return
        for job in await self._claimer.claim(free):
            self._tasks.start(job)
        for _ in range(FIRST_STEPS):
            await asyncio.sleep(0)

    async def _handle_timed(self, job_task: JobTask) -> None:
        start_s = self._loop.time()
        await self._handler.handle(job_task)
        took_ms, before_ms = int((self._loop.time() - start_s) * 1000), self.queue.service_ms
        self.queue.service_ms = took_ms if not before_ms else before_ms + (took_ms - before_ms) // _SMOOTHED_OVER

    def _prepare_slots(self, settings: Settings) -> Callable[[], None]:
        slots = settings.model(self.identity.model).tier(self.identity.tier).slots

        def take() -> None:
            self._slots.resize(settings.worker.min_slots, slots)
            self.metrics.slots.set(self._slots.limit)
            self._freed.set()

        return take

    def _is_full(self) -> bool:
        return not self._slots.free(len(self._tasks)) and not self._isolation.is_active

    def _job_ended(self, job_id: str) -> None:
        self._begun.forget(job_id)
        self._freed.set()

    def _cancel(self, job_id: str) -> None:
        self._tasks.interrupt(job_id, Interruption.CANCELLED)

    def _drop(self, lost: Mapping[str, int], cancelled: list[str]) -> None:
        """Interrupt jobs that were lost or cancelled. The lease thread calls this."""
        for job_id, fence in lost.items():
            self._loop.call_soon_threadsafe(self._tasks.interrupt, job_id, Interruption.LOST, fence)
        for job_id in cancelled:
            self._loop.call_soon_threadsafe(self._tasks.interrupt, job_id, Interruption.CANCELLED)

    async def _set_engine_ready(self, is_ready: bool) -> None:
        self._is_engine_ready = is_ready
        await self._review_readiness()

    def _review(self) -> None:
        """Follow Redis and the background tasks: a worker that lacks one claims nothing, and does not count as live."""
        self.background.once("readiness", self._review_readiness())

    async def _review_readiness(self) -> None:
        is_served = not self.background.down and not self._server.refusal
        is_ready = self._is_engine_ready and is_served and not self.is_kept_idle and not self._draining.is_set()
        if is_ready != self.leases.is_ready:
            await self._set_ready(is_ready)

    async def _set_ready(self, is_ready: bool) -> None:
        self.metrics.ready.set(is_ready)
        self.leases.is_ready, self._claimer.is_queue_empty = is_ready, False
        log.info("worker ready" if is_ready else "worker not ready")
        await self._renew()
        self._freed.set()

    def _renew_soon(self) -> None:
        self.background.once("renewal", self._renew())

    async def _renew(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await asyncio.to_thread(self.leases.renew)

    def _obey(self, text: bytes) -> None:
        """Follow an operator's order, or that it was taken back."""
        order = DrainOrder.read(text)
        self.is_kept_idle = bool(order and order.keep)
        if order:
            log.warning("drain ordered", by=order.operator, reason=order.reason, keep=order.keep)
        if order and not order.keep:
            self.is_dismissed = True
            if not self._draining.is_set():
                self.drain()
        self._review()

    def _report(self) -> WorkerReport:
        is_idle = self.is_kept_idle or self._draining.is_set()
        return self.metrics.tally.report(self._slots.limit, self.leases.ready_ms, len(self._tasks), is_draining=is_idle)

    def _adapt(self, load: EngineLoad) -> None:
        self._slots.adapt(load, len(self._tasks))
        self.metrics.slots.set(self._slots.limit)

    async def _drain(self) -> None:
        log.info("draining", in_flight=len(self._tasks))
        await self._set_ready(False)
        await self._tasks.wait(self.settings.worker.drain_grace_s)
        requeued = len(self._tasks)
        self._tasks.interrupt_all(Interruption.DRAINED)
        # After a lease the jobs are another worker's, and handing them in makes no sense any more.
        await self._tasks.wait(self.settings.queue.lease_s)
        log.info("drained", requeued=requeued)
