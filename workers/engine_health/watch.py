"""Start the engine, follow its health and load, and restart it when it is gone, hangs or breaks too much.

docs/operating.md ("When an engine is in trouble") has the rules as a table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum

import structlog

from bitladder.queue.calls.worker_report import Breaker as ReportedBreaker
from bitladder.settings.worker_section import WorkerSettings
from workers.engine_health.blame import Blame, FaultyAttempt
from workers.engine_health.breaker import Breaker, BreakerState
from workers.engine_health.probe import Probe
from workers.engine_health.traffic import Traffic
from workers.engines.base import EngineLoad
from workers.engines.errors import EngineError
from workers.metrics.worker_metrics import WorkerMetrics

log = structlog.get_logger()
POLL_INTERVAL_S = 1.0
# Jobs whose records one poll reads, to find whose fault their ends were.
_MAX_RECORDS = 64
# Crashes in a row that isolated jobs explain: one prompt crashes the engine in its group, and then alone.
MAX_ISOLATED_CRASHES = 2
_GAUGE = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class _Trouble(StrEnum):
    """Why an engine is restarted."""

    GONE = "gone"  # it does not answer
    HUNG = "hung"  # it answers, but gives no token
    FAULTS = "faults"  # it breaks too large a share of its requests


class EngineWatch:
    """Calls `on_ready` whenever the engine becomes fit for jobs or unfit, and `on_load` with each reading of its load.

    Without `find_blame` every fault of a job stays undecided.
    """

    def __init__(
        self,
        traffic: Traffic,
        settings: WorkerSettings,
        metrics: WorkerMetrics,
        on_ready: Callable[[bool], Awaitable[None]],
        on_load: Callable[[EngineLoad], None],
        find_blame: Callable[[Sequence[FaultyAttempt]], Awaitable[Mapping[FaultyAttempt, Blame]]] | None = None,
    ) -> None:
        self._traffic, self._settings, self._metrics = traffic, settings, metrics
        self._engine = traffic.engine
        self._on_ready, self._on_load, self._find_blame = on_ready, on_load, find_blame
        self._probe = Probe(self._engine, metrics.model)
        self._breaker = Breaker()
        self._loop = asyncio.get_running_loop()
        self._load = EngineLoad()
        self._is_ready = self._was_ready = False
        self._isolated_crashes = 0  # in a row, with nothing served in between

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._poll()
            except Exception:
                # Without this task the worker would not notice that the engine is gone, or is back.
                log.exception("engine watch broke")
                self._note_failure()
            state = self._state()
            self._metrics.breaker.set(_GAUGE[state])
            self._metrics.tally.breaker = ReportedBreaker(state.value)
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _poll(self) -> None:
        before = self._state()
        if before is BreakerState.OPEN:
            await self._set_ready(is_ready=False)
            return
        trouble = await self._find_trouble()
        if trouble and not await self._restart(trouble):
            return
        if before is BreakerState.HALF_OPEN and not await self._try_half_open():
            return
        if self._state() is BreakerState.CLOSED:
            await self._set_ready(is_ready=True)
            self._on_load(self._load)

    async def _find_trouble(self) -> _Trouble | None:
        if not await self._engine.is_healthy():
            self._metrics.engine_exposition = ""
            return _Trouble.GONE
        self._load = await self._engine.load()
        self._metrics.engine_exposition = self._load.exposition
        self._traffic.observe(self._load)
        if self._traffic.is_hung():
            return _Trouble.HUNG
        return _Trouble.FAULTS if await self._is_faulty() else None

    async def _is_faulty(self) -> bool:
        """Return whether too much breaks by the engine's fault; so it is where the engine breaks on the probe too."""
        faults, ratio = self._traffic.faults, self._settings.fault_ratio
        if faults.exceeds(ratio) or not faults.may_exceed(ratio):
            return faults.exceeds(ratio)
        if not await self._probe.has_passed():
            return True
        if self._find_blame:
            faults.learn(await self._find_blame(faults.undecided()[:_MAX_RECORDS]))
        return faults.exceeds(ratio) or faults.is_broken()

    async def _restart(self, trouble: _Trouble) -> bool:
        """Start the engine, for the first time or again; return whether it runs."""
        await self._set_ready(is_ready=False)
        if self._was_ready:
            self._was_ready = False
            self._metrics.restarts(trouble).inc()
            log.warning("engine restarts", reason=trouble)
            if trouble is _Trouble.FAULTS or self._is_own_crash():
                self._note_failure()
        if trouble is _Trouble.FAULTS:
            await self._traffic.idle(self._settings.drain_grace_s)
            self._traffic.excuse_open()
        start_s = self._loop.time()
        try:
            reduced = await self._engine.start()
        except EngineError as error:
            log.error("engine did not start", error=str(error))
            self._note_failure()
            return False
        self._traffic.begin()
        self._load = EngineLoad()
        self._metrics.reduced.set(bool(reduced))
        log.info("engine ready", start_s=round(self._loop.time() - start_s, 1), reduced=reduced or None)
        return True

    def _is_own_crash(self) -> bool:
        """Return whether the crash or hang counts against the engine: it had served nothing since its start.

        Isolated jobs run before all others, and one of them may crash the engine in its group and once more alone.
        """
        if self._traffic.has_served:
            self._isolated_crashes = 0
            return False
        self._isolated_crashes += self._traffic.has_run_isolated
        return self._isolated_crashes > MAX_ISOLATED_CRASHES or not self._traffic.has_run_isolated

    async def _try_half_open(self) -> bool:
        """Probe the engine, and close the breaker when it answers."""
        if not await self._probe.passes():
            self._note_failure()
            return False
        self._breaker.passed()
        log.info("breaker closed")
        return True

    def _note_failure(self) -> None:
        if pause_s := self._breaker.failed(self._loop.time()):
            log.warning("breaker open", pause_s=pause_s)

    def _state(self) -> BreakerState:
        return self._breaker.state(self._loop.time())

    async def _set_ready(self, *, is_ready: bool) -> None:
        self._was_ready = self._was_ready or is_ready
        if is_ready != self._is_ready:
            self._is_ready = is_ready
            await self._on_ready(is_ready)
