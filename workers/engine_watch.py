"""Start the engine, follow its health and load, start it again when it is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from dispatcher.errors import EngineError
from workers.engines.base import Engine, Load

log = structlog.get_logger()
# How often the engine's load and health are looked at.
LOOK_EVERY_S = 1.0
# Longest pause between two tries to start an engine that does not start.
MOST_PAUSE_S = 60.0


class EngineWatch:
    """Tells `on_ready` whenever the engine begins or ceases to answer, and `on_load` how full it is."""

    def __init__(
        self, engine: Engine, on_ready: Callable[[bool], Awaitable[None]], on_load: Callable[[Load], None]
    ) -> None:
        self._engine, self._on_ready, self._on_load = engine, on_ready, on_load
        self._is_ready = False

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            try:
                failures = 0 if await self._look() else failures + 1
            except Exception:
                # Without this task nobody would notice that the engine is gone, or is back.
                log.exception("engine watch broke")
                failures += 1
            # Six doublings reach the longest pause; more would only make a number too large for a clock.
            await asyncio.sleep(min(MOST_PAUSE_S, LOOK_EVERY_S * 2 ** min(failures, 6)))

    async def _look(self) -> bool:
        if not await self._engine.is_healthy():
            await self._tell(is_ready=False)
            if not await self._is_started():
                return False
        await self._tell(is_ready=True)
        self._on_load(await self._engine.load())
        return True

    async def _tell(self, *, is_ready: bool) -> None:
        if is_ready != self._is_ready:
            self._is_ready = is_ready
            await self._on_ready(is_ready)

    async def _is_started(self) -> bool:
        start = time.monotonic()
        try:
            await self._engine.start()
        except EngineError as error:
            log.error("engine did not start", error=str(error))
            return False
        log.info("engine ready", start_s=round(time.monotonic() - start, 1))
        return True
