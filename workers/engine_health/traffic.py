"""What goes through an engine: which requests are in it, how they end, and when it last gave a sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping

import msgspec
import structlog

from bitladder.contract import Claimed
from workers.engine_health.blame import Blame, Suspect
from workers.engine_health.pause import Pause
from workers.engines.base import Answer, Answers, Engine, Load, OnChunk
from workers.engines.errors import (
    EngineBusyError,
    EngineCorruptedError,
    EngineFaultError,
    EngineLostError,
    EngineUnreachableError,
)
from workers.metrics import WorkerMetrics

log = structlog.get_logger()
# The fault ratio is that of the last so many requests ...
WINDOW = 500
# ... and no less than so many of them: one fault among the first three says nothing.
MIN_FAULTS = 5
# Of jobs that broke here only: an engine that breaks so many, and more than it answers, is started again.
MANY_FAULTS = 20


class _End(msgspec.Struct, eq=False):
    """How one request ended badly."""

    suspect: Suspect | None = None  # the job, where there was one: its prompt may be to blame
    blame: Blame | None = None  # None: not known yet

    @property
    def is_new(self) -> bool:
        """Whether nothing is known of such an end on another engine."""
        return self.blame is not Blame.PROMPT and (self.suspect is None or self.suspect.attempt == 1)


_SOUND = _End()


class FaultWindow:
    """How the last requests ended: well, or by whose fault not. A job's fault is nobody's until more is known."""

    def __init__(self) -> None:
        self._ends: deque[_End] = deque(maxlen=WINDOW)

    def note(self, *, is_fault: bool, suspect: Suspect | None = None) -> None:
        self._ends.append(_End(suspect, None if suspect else Blame.ENGINE) if is_fault else _SOUND)

    def settle(self, found: Mapping[Suspect, Blame]) -> None:
        """Take in whose faults some were."""
        for end in self._open():
            end.blame = found.get(end.suspect) if end.suspect else None

    def suspects(self) -> list[Suspect]:
        """Return those of whom it is not known, the first ones first."""
        return [end.suspect for end in self._open() if end.suspect]

    def exceeds(self, ratio: float) -> bool:
        """Return whether so large a share of the requests broke by the engine's fault."""
        return self._is_much(self._engines(), ratio)

    def may_exceed(self, ratio: float) -> bool:
        """Return whether it would be so large a share, if all were the engine's of which it is not known."""
        return self._is_much(self._engines() + len(self._open()), ratio)

    def is_broken(self) -> bool:
        """Return whether more jobs broke than not, and so many that it cannot be their prompts.

        Those that broke elsewhere say nothing: a higher tier may see few others.
        """
        faults = sum(end.is_new for end in self._ends if end is not _SOUND)
        return faults >= MANY_FAULTS and faults > sum(end is _SOUND for end in self._ends)

    def _open(self) -> list[_End]:
        return [end for end in self._ends if end is not _SOUND and end.blame is None]

    def _engines(self) -> int:
        return sum(end.blame is Blame.ENGINE for end in self._ends)

    def _is_much(self, faults: int, ratio: float) -> bool:
        return faults >= MIN_FAULTS and faults > ratio * len(self._ends)


class Passing(msgspec.Struct, eq=False):
    """One request in the engine."""

    limit: asyncio.Timeout
    is_stream: bool
    last_s: float  # when it came, or its last chunk; infinity while a chunk is being taken
    has_chunks: bool = False
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
        self.has_served = self.has_tried_suspects = False
        self._load = Load()
        self._progress_s = self._loop.time()

    def paused_s(self) -> float:
        """Return for how long nothing should be asked of the engine, by its own word."""
        return self._pause.left_s(self._loop.time())

    def of(self, job: Claimed) -> Answers:
        """Return the way through for one job, which may be to blame for what happens to it."""
        return _JobTraffic(self, job)

    async def generate(
        self, endpoint: str, body: bytes, on_chunk: OnChunk | None, job: Claimed | None = None
    ) -> Answer:
        """Pass one request through."""
        now = self._loop.time()
        suspect = Suspect(job.job_id, job.attempt) if job else None
        if self._pause.is_told(now):
            raise EngineBusyError(self._pause.reason)
        if not self._open:
            self._progress_s = now  # an idle engine owes nothing
        self.has_tried_suspects = self.has_tried_suspects or bool(job and job.suspicion)
        passing = Passing(limit=asyncio.timeout(None), is_stream=on_chunk is not None, last_s=now)
        self._open.add(passing)
        self._idle.clear()
        try:
            async with passing.limit:
                return await self._passed(endpoint, body, on_chunk and self._watched(on_chunk, passing), suspect)
        except EngineLostError as error:
            if passing.is_excused:
                raise EngineBusyError("the engine is started again, for what other requests did") from error
            raise
        except TimeoutError as error:
            if not passing.limit.expired():
                raise
            self.faults.note(is_fault=True, suspect=suspect)
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
            waits = one.is_stream and (one.has_chunks or self._load.tokens is None)
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

    async def _passed(self, endpoint: str, body: bytes, on_chunk: OnChunk | None, suspect: Suspect | None) -> Answer:
        asked_s = self._loop.time()
        try:
            answer = await self._engine.generate(endpoint, body, on_chunk)
        except (EngineUnreachableError, EngineLostError):
            raise  # nothing ran; or nobody knows on whose account
        except EngineBusyError as error:
            self._rest(asked_s, error)
            raise
        except EngineFaultError as error:
            self._pause.answered(asked_s)
            if isinstance(error, EngineCorruptedError):
                self._metrics.corrupted("answer").inc()
            self.faults.note(is_fault=True, suspect=suspect)
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

    def _watched(self, on_chunk: OnChunk, passing: Passing) -> OnChunk:
        async def watched(data: bytes) -> None:
            # Whoever is slow to take a chunk (Redis may be away) is not the engine.
            passing.has_chunks, passing.last_s = True, math.inf
            await on_chunk(data)
            passing.last_s = self._progress_s = self._loop.time()

        return watched


class _JobTraffic:
    """The traffic as one job sees it."""

    def __init__(self, traffic: Traffic, job: Claimed) -> None:
        self._traffic, self._job = traffic, job

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        return await self._traffic.generate(endpoint, body, on_chunk, self._job)
