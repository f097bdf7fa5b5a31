"""What goes through an engine: which requests are in it, how they end, and when it last gave a sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from dispatcher.errors import (
    EngineBusyError,
    EngineCorruptedError,
    EngineFaultError,
    EngineLostError,
    EngineUnreachableError,
)
from workers.engines.base import Answer, Engine, Load, OnPiece
from workers.metrics import WorkerMetrics
from workers.pause import Pause

log = structlog.get_logger()
# The fault ratio is that of the last so many requests ...
WINDOW = 500
# ... and no less than so many of them: one fault among the first three says nothing.
LEAST_FAULTS = 5


class FaultWindow:
    """How the last requests ended."""

    def __init__(self) -> None:
        self._ends: deque[bool] = deque(maxlen=WINDOW)

    def note(self, *, is_fault: bool) -> None:
        self._ends.append(is_fault)

    def exceeds(self, ratio: float) -> bool:
        """Return whether so large a share of the requests broke that the engine is to blame."""
        faults = sum(self._ends)
        return faults >= LEAST_FAULTS and faults > ratio * len(self._ends)


class Passing(msgspec.Struct, eq=False):
    """One request in the engine."""

    limit: asyncio.Timeout
    is_stream: bool
    last_s: float  # when it came, or its last piece; infinity while a piece is being taken
    has_pieces: bool = False
    is_excused: bool = False  # the engine is ended on our account


class Traffic:
    """Stands between the pump and its engine, and sees every request come and go."""

    def __init__(self, engine: Engine, metrics: WorkerMetrics, hang_s: float) -> None:
        self._engine, self._metrics, self._hang_s = engine, metrics, hang_s
        self._loop = asyncio.get_running_loop()
        self.on_pause: Callable[[], None] = lambda: None
        self._pause = Pause()
        metrics.pause.set_function(self.paused_s)
        self._open: set[Passing] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.begin()

    def begin(self) -> None:
        """Forget what the engine did before it was started."""
        self.faults = FaultWindow()
        self.has_served = False
        self._load = Load()
        self._progress_s = self._loop.time()

    def paused_s(self) -> float:
        """Return for how long nothing should be asked of the engine, by its own word."""
        return self._pause.left_s(self._loop.time())

    async def generate(self, endpoint: str, body: bytes, on_piece: OnPiece | None) -> Answer:
        """Pass one request through."""
        now = self._loop.time()
        if self._pause.is_told(now):
            raise EngineBusyError(self._pause.reason)
        if not self._open:
            self._progress_s = now  # an idle engine owes nothing
        passing = Passing(limit=asyncio.timeout(None), is_stream=on_piece is not None, last_s=now)
        self._open.add(passing)
        self._idle.clear()
        try:
            async with passing.limit:
                return await self._passed(endpoint, body, on_piece and self._watched(on_piece, passing))
        except EngineLostError as error:
            if passing.is_excused:
                raise EngineBusyError("the engine is started again, for what other requests did") from error
            raise
        except TimeoutError as error:
            if not passing.limit.expired():
                raise
            self.faults.note(is_fault=True)
            raise EngineFaultError(f"the stream had no token for {self._hang_s:g} s") from error
        finally:
            self._open.discard(passing)
            if not self._open:
                self._idle.set()

    def observe(self, load: Load) -> None:
        """Follow one reading of the engine's own figures, and end the streams that stand still in a running engine."""
        now = self._loop.time()
        if load.tokens is not None:
            if load.tokens != self._load.tokens:
                self._progress_s = now
            self._note_corrupted(load.corrupted - self._load.corrupted)
            self._load = load
        if self.is_hung():
            return
        for one in self._open:
            # In an engine that tells its progress a first token may wait its turn; in another nobody can tell.
            waits = one.is_stream and (one.has_pieces or self._load.tokens is None)
            if waits and now - one.last_s > self._hang_s:
                one.limit.reschedule(now)

    def is_hung(self) -> bool:
        """Return whether requests are in the engine and nothing has come out of it for too long."""
        is_silent = self._loop.time() - self._progress_s > self._hang_s
        is_owing = any(one.last_s < math.inf for one in self._open)
        return is_silent and is_owing and self._load.tokens is not None

    def excuse(self) -> None:
        """Say that the engine is about to be ended for what is over: what is in it is not to blame."""
        for one in self._open:
            one.is_excused = True

    async def idle(self, timeout_s: float) -> None:
        """Return when nothing is in the engine any more, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def _passed(self, endpoint: str, body: bytes, on_piece: OnPiece | None) -> Answer:
        asked_s = self._loop.time()
        try:
            answer = await self._engine.generate(endpoint, body, on_piece)
        except (EngineUnreachableError, EngineLostError):
            raise  # nothing ran; or nobody knows on whose account
        except EngineBusyError as error:
            self._rest(asked_s, error)
            raise
        except EngineFaultError as error:
            self._pause.answered(asked_s)
            if isinstance(error, EngineCorruptedError):
                self._metrics.corrupted("answer").inc()
            self.faults.note(is_fault=True)
            raise
        self._pause.answered(asked_s)
        self.faults.note(is_fault=False)
        self._progress_s = self._loop.time()
        self.has_served = True
        return answer

    def _rest(self, asked_s: float, error: EngineBusyError) -> None:
        if pause_s := self._pause.busy(self._loop.time(), asked_s, error.retry_after_s, str(error)):
            log.warning("engine busy", pause_s=round(pause_s, 1))
            self.on_pause()

    def _note_corrupted(self, more: int) -> None:
        for _ in range(min(max(0, more), WINDOW)):  # less than none: the engine has started anew
            self._metrics.corrupted("counter").inc()
            self.faults.note(is_fault=True)

    def _watched(self, on_piece: OnPiece, passing: Passing) -> OnPiece:
        async def watched(data: bytes) -> None:
            # Whoever is slow to take a piece (Redis may be away) is not the engine.
            passing.has_pieces, passing.last_s = True, math.inf
            await on_piece(data)
            passing.last_s = self._progress_s = self._loop.time()

        return watched
