"""Every request between a worker and its engine: which are open, how they end, when the engine last made progress."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

import msgspec
import structlog

from bitladder.contract import Claimed
from workers.engine_health.blame import FaultyAttempt
from workers.engine_health.fault_window import WINDOW, FaultWindow
from workers.engine_health.pause import Pause
from workers.engines.base import Answer, Answers, Engine, EngineLoad, OnChunk
from workers.engines.errors import (
    EngineBusyError,
    EngineCorruptedError,
    EngineFaultError,
    EngineLostError,
    EngineUnreachableError,
    EnoughError,
)
from workers.metrics.worker_metrics import WorkerMetrics

log = structlog.get_logger()


class _OpenRequest(msgspec.Struct, eq=False):
    """One request in the engine."""

    limit: asyncio.Timeout
    is_stream: bool
    last_s: float  # when it came, or its last chunk; infinity while a chunk is being sent on
    has_chunks: bool = False
    is_excused: bool = False  # the worker itself ends the engine, for the faults of other requests


class Traffic:
    """The way to one engine. `on_pause` is called when a busy engine begins to want no requests."""

    def __init__(
        self, engine: Engine, metrics: WorkerMetrics, hang_s: float, on_pause: Callable[[], None] = lambda: None
    ) -> None:
        self.engine = engine
        self._metrics, self._hang_s, self._on_pause = metrics, hang_s, on_pause
        self._loop = asyncio.get_running_loop()
        self._pause = Pause()
        metrics.pause.set_function(self.paused_s)
        self._open: set[_OpenRequest] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.begin()

    def begin(self) -> None:
        """Forget what the engine did before its last start."""
        self.faults = FaultWindow()
        self.has_served = self.has_run_isolated = False
        self._load = EngineLoad()
        self._progress_s = self._loop.time()

    def paused_s(self) -> float:
        """Return for how long the busy engine is sent nothing."""
        return self._pause.left_s(self._loop.time())

    def for_job(self, job: Claimed) -> Answers:
        """Return the way for one job, whose prompt may be to blame for a fault."""
        return _JobTraffic(self, job)

    async def generate(
        self, endpoint: str, body: bytes, on_chunk: OnChunk | None, job: Claimed | None = None
    ) -> Answer:
        """Send one request to the engine, of a job or of the worker itself."""
        now = self._loop.time()
        if self._pause.is_by_engine(now):
            raise EngineBusyError(self._pause.reason)
        if not self._open:
            self._progress_s = now  # an idle engine owes no progress
        self.has_run_isolated = self.has_run_isolated or bool(job and job.crash_count)
        request = _OpenRequest(limit=asyncio.timeout(None), is_stream=on_chunk is not None, last_s=now)
        faulty = FaultyAttempt(job.job_id, job.attempt) if job else None
        self._open.add(request)
        self._idle.clear()
        try:
            async with request.limit:
                return await self._ask(endpoint, body, on_chunk and self._timed(on_chunk, request), faulty)
        except EngineLostError as error:
            if request.is_excused:
                raise EngineBusyError("the engine is restarted because of faults of other requests") from error
            raise
        except TimeoutError as error:
            if not request.limit.expired():
                raise
            self.faults.note(is_fault=True, faulty=faulty)
            raise EngineFaultError(f"the stream had no token for {self._hang_s:g} s") from error
        finally:
            self._open.discard(request)
            if not self._open:
                self._idle.set()

    def observe(self, load: EngineLoad) -> None:
        """Take one reading of the engine's own figures, and end the streams that stall in a running engine."""
        now = self._loop.time()
        if load.tokens is not None:
            if load.tokens != self._load.tokens:
                self._progress_s = now
            self._note_corrupted(load.corrupted - self._load.corrupted)
            self._load = load
        if self.is_hung():
            return
        for request in self._open:
            # Where the engine reports its tokens, a first token may wait in the engine's queue. Elsewhere that cannot
            # be told from a stall.
            may_stall = request.is_stream and (request.has_chunks or self._load.tokens is None)
            if may_stall and now - request.last_s > self._hang_s:
                request.limit.reschedule(now)

    def is_hung(self) -> bool:
        """Return whether requests are in the engine and it has made no progress for too long."""
        is_silent = self._loop.time() - self._progress_s > self._hang_s
        is_owing = any(request.last_s < math.inf for request in self._open)
        return is_silent and is_owing and self._load.tokens is not None

    def excuse_open(self) -> None:
        """Note that the worker is about to end the engine: the requests in it now are not to blame."""
        for request in self._open:
            request.is_excused = True

    async def idle(self, timeout_s: float) -> None:
        """Return when no request is in the engine any more, or after that time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def _ask(self, endpoint: str, body: bytes, on_chunk: OnChunk | None, faulty: FaultyAttempt | None) -> Answer:
        sent_s = self._loop.time()
        try:
            answer = await self.engine.generate(endpoint, body, on_chunk)
        except (EngineUnreachableError, EngineLostError):
            raise  # nothing ran; or the cause is not known
        except EngineBusyError as error:
            self._note_busy(sent_s, error)
            raise
        except EngineFaultError as error:
            self._pause.answered(sent_s)
            self._metrics.count_answer()
            if isinstance(error, EngineCorruptedError):
                self._metrics.count_corrupted("answer")
            self.faults.note(is_fault=True, faulty=faulty)
            raise
        except EnoughError:
            self._note_answer(sent_s)
            raise
        self._note_answer(sent_s)
        return answer

    def _note_answer(self, sent_s: float) -> None:
        self._pause.answered(sent_s)
        self._metrics.count_answer()
        self.faults.note(is_fault=False)
        self._progress_s = self._loop.time()
        self.has_served = True

    def _note_busy(self, sent_s: float, error: EngineBusyError) -> None:
        if pause_s := self._pause.busy(self._loop.time(), sent_s, error.retry_after_s, str(error)):
            log.warning("engine busy", pause_s=round(pause_s, 1))
            self._on_pause()

    def _note_corrupted(self, count: int) -> None:
        for _ in range(min(max(0, count), WINDOW)):  # below 0: the engine was restarted
            self._metrics.count_corrupted("counter")
            self.faults.note(is_fault=True)

    def _timed(self, on_chunk: OnChunk, request: _OpenRequest) -> OnChunk:
        async def timed(data: bytes) -> None:
            # A reader that is slow to take a chunk (Redis may be unreachable) is no stall of the engine.
            request.has_chunks, request.last_s = True, math.inf
            await on_chunk(data)
            request.last_s = self._progress_s = self._loop.time()

        return timed


class _JobTraffic:
    """The way to the engine for one job."""

    def __init__(self, traffic: Traffic, job: Claimed) -> None:
        self._traffic, self._job = traffic, job

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        return await self._traffic.generate(endpoint, body, on_chunk, self._job)
