"""Start the engine, follow its health and load, start it again when it is gone, hangs or breaks too much.

docs/operating.md ("When an engine is in trouble") has the rules as a table.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum

import msgspec
import structlog

from bitladder.contract import Endpoint
from bitladder.errors import EngineBusyError, EngineError, EngineUnreachableError
from bitladder.settings.worker_section import WorkerSettings
from workers.engine_health.blame import Blame, Suspect
from workers.engine_health.breaker import Breaker, BreakerState
from workers.engine_health.traffic import Traffic
from workers.engines.base import Engine, Load
from workers.metrics import WorkerMetrics

log = structlog.get_logger()
# How often the engine's load and health are looked at.
LOOK_EVERY_S = 1.0
# How long the half-open breaker's own request may take.
PROBE_S = 30.0
# How long such an answer says that an engine which breaks some requests does not break all.
SOUND_S = 5.0
# Jobs whose records are looked at, at once.
MAX_SUSPECTS = 64
# Losses in a row that suspects answer for: one prompt takes the engine down in small company, and then alone.
MAX_TRIALS = 2
_GAUGE = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class Trouble(StrEnum):
    """Why an engine is started again."""

    GONE = "gone"  # it does not answer
    HUNG = "hung"  # it answers, but no token comes
    FAULTS = "faults"  # it breaks too large a share of its requests


class EngineWatch:
    """Tells `on_ready` whenever the engine begins or ceases to be fit for jobs, and `on_load` how full it is."""

    def __init__(
        self,
        engine: Engine,
        settings: WorkerSettings,
        metrics: WorkerMetrics,
        on_ready: Callable[[bool], Awaitable[None]],
        on_load: Callable[[Load], None],
        blamed: Callable[[Sequence[Suspect]], Awaitable[Mapping[Suspect, Blame]]] | None = None,
    ) -> None:
        self._blamed = blamed
        self._engine, self._settings, self._metrics = engine, settings, metrics
        self._on_ready, self._on_load = on_ready, on_load
        self.traffic = Traffic(engine, metrics, settings.hang_s)
        self._breaker = Breaker()
        self._loop = asyncio.get_running_loop()
        self._load = Load()
        self._is_ready = self._was_ready = False
        self._sound_s = -math.inf  # when the engine last answered a request of our own
        self._trials = 0  # losses in a row with suspects in it, and nothing served

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:
                # Without this task nobody would notice that the engine is gone, or is back.
                log.exception("engine watch broke")
                self._failed()
            self._metrics.breaker.set(_GAUGE[self._state()])
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        before = self._state()
        if before is BreakerState.OPEN:
            await self._tell(is_ready=False)
            return
        trouble = await self._trouble()
        if trouble and not await self._restarted(trouble):
            return
        if before is BreakerState.HALF_OPEN and not await self._passes():
            return
        if self._state() is BreakerState.CLOSED:
            await self._tell(is_ready=True)
            self._on_load(self._load)

    async def _trouble(self) -> Trouble | None:
        if not await self._engine.is_healthy():
            return Trouble.GONE
        self._load = await self._engine.load()
        self.traffic.observe(self._load)
        if self.traffic.is_hung():
            return Trouble.HUNG
        return Trouble.FAULTS if await self._is_faulty() else None

    async def _is_faulty(self) -> bool:
        """Return whether too much breaks by the engine's fault: one that breaks everything answers us neither."""
        faults, ratio = self.traffic.faults, self._settings.fault_ratio
        if faults.exceeds(ratio) or not faults.may_exceed(ratio):
            return faults.exceeds(ratio)
        if not await self._is_sound():
            return True
        if self._blamed:
            faults.settle(await self._blamed(faults.suspects()[:MAX_SUSPECTS]))
        return faults.exceeds(ratio) or faults.is_broken()

    async def _is_sound(self) -> bool:
        """Return whether the engine answers a request of our own, or did a moment ago."""
        if self._loop.time() - self._sound_s < SOUND_S:
            return True
        if is_sound := await self._answers():
            self._sound_s = self._loop.time()
        return is_sound

    async def _answers(self) -> bool:
        probe = msgspec.json.encode({"model": self._metrics.model, "prompt": "Hello", "max_tokens": 1})
        try:
            await asyncio.wait_for(self._engine.generate(Endpoint.COMPLETIONS, probe, None), PROBE_S)
        except EngineUnreachableError as error:
            log.warning("engine did not pass", error=str(error))
            return False
        except EngineBusyError:
            return True  # it has too much to do
        except (EngineError, TimeoutError) as error:
            log.warning("engine did not pass", error=str(error))
            return False
        return True

    async def _restarted(self, trouble: Trouble) -> bool:
        """Start the engine (again); return whether it is there."""
        await self._tell(is_ready=False)
        if self._was_ready:
            self._was_ready = False
            self._metrics.restarts(trouble).inc()
            log.warning("engine restarts", reason=trouble)
            if trouble is Trouble.FAULTS or self._is_barren():
                self._failed()
        if trouble is Trouble.FAULTS:
            await self.traffic.idle(self._settings.drain_grace_s)
            self.traffic.excuse()
        start = self._loop.time()
        try:
            reduced = await self._engine.start()
        except EngineError as error:
            log.error("engine did not start", error=str(error))
            self._failed()
            return False
        self.traffic.begin()
        self._load = Load()
        self._metrics.reduced.set(bool(reduced))
        log.info("engine ready", start_s=round(self._loop.time() - start, 1), reduced=reduced or None)
        return True

    def _is_barren(self) -> bool:
        """Return whether the engine was lost on its own account: it had served nothing since its start.

        A suspect runs before all others, and may take it down in its company and once more alone.
        """
        if self.traffic.has_served:
            self._trials = 0
            return False
        self._trials += self.traffic.has_tried_suspects
        return self._trials > MAX_TRIALS or not self.traffic.has_tried_suspects

    async def _passes(self) -> bool:
        """Try one request of our own, and close the breaker when it is answered."""
        if not await self._answers():
            self._failed()
            return False
        self._breaker.passed()
        log.info("breaker closed")
        return True

    def _failed(self) -> None:
        if pause_s := self._breaker.failed(self._loop.time()):
            log.warning("breaker open", pause_s=pause_s)

    def _state(self) -> BreakerState:
        return self._breaker.state(self._loop.time())

    async def _tell(self, *, is_ready: bool) -> None:
        self._was_ready = self._was_ready or is_ready
        if is_ready != self._is_ready:
            self._is_ready = is_ready
            await self._on_ready(is_ready)
