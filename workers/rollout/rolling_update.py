"""The rolling update: when another checkpoint of the tier is published, drain, start its engine, claim again.

A worker changes its checkpoint as in a restart, but within its process: it stops claiming, finishes what runs within
`worker.drain_grace_s`, requeues the rest with no attempt counted, and begins anew under a new name. One worker of a
model does so at a time, and holds the rollout lock until its new engine answers. So a checkpoint that does not start
costs one worker; the others serve the old one until a better release, or a rollback, is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bitladder.process.process_metrics import add_process_metrics
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue.upkeep.live_settings import LiveStore
from bitladder.settings.live import POLL_INTERVAL_S, ReleaseWatch, take_changes
from bitladder.settings.models_section import TierSettings
from bitladder.settings.sections import Settings
from workers.engines.base import Engine
from workers.engines.errors import EngineFaultError
from workers.engines.published import require_published
from workers.engines.vllm_metrics import engine_metrics
from workers.engines.vllm_server import checkpoint_path
from workers.pump import Pump
from workers.rollout.lock import RolloutLock

if TYPE_CHECKING:
    from bitladder.process.tracing.spans import Spans

log = structlog.get_logger()


class RollingUpdate:
    """Runs the pumps of one worker process, one after the other."""

    def __init__(
        self,
        watch: ReleaseWatch,
        model: str,
        tier: str,
        build_engine: Callable[[Settings, str, str], Engine],
        *,
        spans: Spans | None = None,
    ) -> None:
        self._watch, self._model, self._tier, self._build_engine = watch, model, tier, build_engine
        self._spans = spans
        self._lock = RolloutLock(watch.settings.redis, model)
        first = watch.files.settings.at_each_redis[0].redis  # where the live settings are
        self._first_redis = None if first == watch.settings.redis else connect(first)
        self._is_updating = self._is_ending = False
        self._refused: object = None  # the checkpoint that was refused last
        self.pump = self._make_pump()
        self.registry = CollectorRegistry()
        self.registry.register(_PumpMetrics(self))
        add_process_metrics(self.registry)

    async def run(self) -> None:
        """Run until drain() is called."""
        try:
            while True:
                await self._take_changes()
                self.pump.background.start("release", self._follow)
                await self.pump.run()
                if self._is_ending or not self._is_updating or self.pump.is_dismissed:
                    return
                self._is_updating = False
                self.pump = self._make_pump()
        finally:
            await self._lock.close()
            if self._first_redis:
                await self._first_redis.aclose()

    def drain(self) -> None:
        """End the worker. One that drains already, to change its checkpoint, ends when that drain is over."""
        is_draining_already = self._is_updating and not self._is_ending
        self._is_ending = True
        if not is_draining_already:
            self.pump.drain()

    def _make_pump(self) -> Pump:
        settings = self._watch.settings
        pump = Pump(
            settings, self._model, self._tier, self._build_engine(settings, self._model, self._tier), spans=self._spans
        )
        pump.metrics.tally.serve(settings, self._tier_in(settings))
        published = self._tier_in(settings).published
        pump.metrics.taken.release.set(published.version if published else 0)
        self._live_store = LiveStore(JobQueue(self._first_redis, pump.live) if self._first_redis else pump.queue)
        return pump

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self._poll()

    async def _poll(self) -> None:
        await self._take_changes()
        if self._lock.is_held:
            is_complete = self.pump.leases.is_ready and not self._is_updating
            await (self._lock.release() if is_complete else self._lock.renew())
        published, running = self._tier_in(self._watch.settings), self._tier_in(self.pump.settings)
        is_busy = self._is_updating or self._is_ending or self.pump.is_kept_idle  # else it would claim again, renamed
        if is_busy or _identity(published) == _identity(running):
            return
        if await self._can_load(published) and await self._lock.acquire():
            log.info("checkpoint changes", old=running.checkpoint, new=published.checkpoint)
            self._is_updating = True
            self.pump.drain()

    async def _take_changes(self) -> None:
        """Let the running pump go by what may change while it runs; its checkpoint changes with the next one."""
        await take_changes(self._watch, self.pump.live, self._live_store.read)
        self.pump.metrics.taken.live_revision.set(self._watch.live.revision)
        self.pump.metrics.taken.refused.set(self._watch.refused)

    async def _can_load(self, tier: TierSettings) -> bool:
        """Return whether the weights that were published are on this machine; log it once where they are not."""
        settings = self._watch.settings
        if settings.worker.engine != "vllm":
            return True
        try:
            checkpoint_path(tier, settings.vllm)
            await require_published(tier, settings.vllm)
        except EngineFaultError as error:
            if self._refused != _identity(tier):
                self._refused = _identity(tier)
                log.error("checkpoint refused, the old one stays", error=str(error))
            return False
        return True

    def _tier_in(self, settings: Settings) -> TierSettings:
        return settings.model(self._model).tier(self._tier)


class _PumpMetrics(Collector):
    """The metrics of the present pump and its engine: counters begin anew with each pump, as after a restart."""

    def __init__(self, update: RollingUpdate) -> None:
        self._update = update

    def collect(self) -> Iterable[Metric]:
        metrics, identity = self._update.pump.metrics, self._update.pump.identity
        yield from metrics.registry.collect()
        yield from engine_metrics(metrics.engine_exposition, {"model": identity.model, "tier": identity.tier})


def _identity(tier: TierSettings) -> tuple[str, str]:
    """Return what tells one checkpoint from another: its folder, and its weights' digest."""
    return tier.checkpoint, tier.published.digest if tier.published else ""
