"""One pump after another: when another checkpoint of the tier is published, drain, start its engine, claim again.

A worker changes its checkpoint as it would be restarted, without the process: it stops claiming, finishes what runs
(`worker.drain_grace_s`; the rest goes back uncharged), and begins anew under a new name. One worker of a model does so
at a time, and keeps its turn until its new engine answers: a checkpoint that does not start costs one worker, and the
others serve the old one until a better ladder, or a rollback, is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bitladder.settings.live import POLL_INTERVAL_S, ReleaseWatch
from bitladder.settings.models_section import TierSettings
from bitladder.settings.paths import in_cache
from bitladder.settings.sections import Settings
from workers.engines.base import Engine
from workers.pump import Pump
from workers.rollout.lock import Turn

log = structlog.get_logger()


class Rolling:
    """Runs the pumps of one worker process."""

    def __init__(
        self, watch: ReleaseWatch, model: str, tier: str, build_engine: Callable[[Settings, str, str], Engine]
    ) -> None:
        self._watch, self._model, self._tier, self._build_engine = watch, model, tier, build_engine
        self._turn = Turn(watch.settings.redis, model)
        self._is_swapping = self._is_ending = False
        self._refused: object = None  # the checkpoint that was refused last
        self.pump = self._make_pump()
        self.registry = CollectorRegistry()
        self.registry.register(_Present(self))

    async def run(self) -> None:
        """Run until drain() is called."""
        try:
            while True:
                self.pump.background.start("ladder", self._follow)
                await self.pump.run()
                if self._is_ending or not self._is_swapping:
                    return
                self._is_swapping = False
                self.pump = self._make_pump()
        finally:
            await self._turn.close()

    def drain(self) -> None:
        """End the worker; one that drains to change its checkpoint ends when it is through with that."""
        is_draining_already = self._is_swapping and not self._is_ending
        self._is_ending = True
        if not is_draining_already:
            self.pump.drain()

    def _make_pump(self) -> Pump:
        settings = self._watch.settings
        pump = Pump(settings, self._model, self._tier, self._build_engine(settings, self._model, self._tier))
        published = self._its(settings).published
        pump.metrics.ladder.set(published.version if published else 0)
        return pump

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        await asyncio.to_thread(self._watch.look)
        if self._turn.is_held:
            is_through = self.pump.leases.is_ready and not self._is_swapping
            await (self._turn.leave() if is_through else self._turn.keep())
        wanted, present = self._its(self._watch.settings), self._its(self.pump.settings)
        if self._is_swapping or self._is_ending or _identity(wanted) == _identity(present):
            return
        if self._can_load(wanted) and await self._turn.take():
            log.info("checkpoint changes", tier=self._tier, was=present.checkpoint, to=wanted.checkpoint)
            self._is_swapping = True
            self.pump.drain()

    def _can_load(self, wanted: TierSettings) -> bool:
        """Return whether the weights are on this machine; say so once where they are not."""
        settings = self._watch.settings
        if settings.worker.engine != "vllm":
            return True
        folder = in_cache(wanted.checkpoint, settings.vllm.cache_dir)
        if (folder / "config.json").is_file():
            return True
        if self._refused != _identity(wanted):
            self._refused = _identity(wanted)
            log.error("checkpoint refused, the one before stays: no model in it", tier=self._tier, folder=str(folder))
        return False

    def _its(self, settings: Settings) -> TierSettings:
        return settings.model(self._model).tier(self._tier)


class _Present(Collector):
    """The metrics of the present pump: their counters begin anew with it, as after a restart."""

    def __init__(self, rolling: Rolling) -> None:
        self._rolling = rolling

    def collect(self) -> Iterable[Metric]:
        return self._rolling.pump.metrics.registry.collect()


def _identity(tier: TierSettings) -> tuple[str, str]:
    """Return what makes a checkpoint another one: its folder, or other weights in the same folder."""
    return tier.checkpoint, tier.published.digest if tier.published else ""
