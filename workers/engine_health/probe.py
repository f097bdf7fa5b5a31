"""Ask an engine for one token, to tell one that breaks on everything from one that breaks on some prompts."""

from __future__ import annotations

import asyncio
import math

import msgspec
import structlog

from bitladder.endpoints import Endpoint
from workers.engines.base import Engine
from workers.engines.errors import EngineBusyError, EngineError, EngineUnreachableError

log = structlog.get_logger()
# How long the engine may take for it.
TIMEOUT_S = 30.0
# For how long an answer counts.
_VALID_S = 5.0


class Probe:
    """The worker's own request to its engine."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._body = msgspec.json.encode({"model": model, "prompt": "Hello", "max_tokens": 1})
        self._loop = asyncio.get_running_loop()
        self._passed_s = -math.inf  # when the engine last answered has_passed()

    async def has_passed(self) -> bool:
        """Return whether the engine answers now, or did a moment ago."""
        if self._loop.time() - self._passed_s < _VALID_S:
            return True
        if is_passed := await self.passes():
            self._passed_s = self._loop.time()
        return is_passed

    async def passes(self) -> bool:
        """Return whether the engine answers, or is there and busy."""
        try:
            await asyncio.wait_for(self._engine.generate(Endpoint.COMPLETIONS, self._body, None), TIMEOUT_S)
        except EngineUnreachableError as error:
            log.warning("engine did not answer the probe", error=str(error))
            return False
        except EngineBusyError:
            return True
        except (EngineError, TimeoutError) as error:
            log.warning("engine did not answer the probe", error=str(error))
            return False
        return True
