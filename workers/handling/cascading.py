"""The cascade at one worker: asks its engine how sure it was, and lets jobs escalate where that was too little.

Where the calibration is of an answer's beginning, the engine is asked to stream it, though the client gets it whole: as
soon as so many tokens are there the answer is judged, and aborted if a higher tier is to give another one.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from bitladder.contract import NO_BODY, Claimed, Outcome, Request, State
from bitladder.errors import ConfigError
from bitladder.routing.cascade import (
    MAX_FILE_BYTES,
    Cascade,
    has_ended,
    margins_of,
    max_tokens_of,
    read_calibration,
    without_logprobs,
)
from bitladder.settings.sections import Settings
from workers.clock import ServerClock
from workers.engines.answer_shape import Shape, shape_of, shaped
from workers.engines.base import Answer, Answers, OnChunk
from workers.engines.errors import EnoughError
from workers.engines.sse import EventParser
from workers.execute import LOW_CONFIDENCE
from workers.handling.higher_tiers import HigherTiers
from workers.identity import Identity
from workers.metrics.worker_metrics import WorkerMetrics

# A job escalates only if so many times its first execution's time are left to its deadline: a higher tier is slower.
_MIN_TIMES_LEFT = 2.0
# An answer that is handed over before it is whole cannot be kept for want of another: the higher tier must be able to
# try more than once.
_MIN_ATTEMPTS_LEFT = 2


def _cascade_of(settings: Settings, worker: Identity) -> Cascade | None:
    """Return what the worker's tier judges its answers by; None where it does not.

    Raises:
        ConfigError: there is no such file, or it is no calibration.

    """
    file = settings.cascade.calibration
    if not file:
        return None
    try:
        with Path(file).open("rb") as content:
            data = content.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cascade.calibration: cannot read {file!r}: {error.strerror}") from error
    calibration = read_calibration(data, file, {name: model.ladder for name, model in settings.models.items()})
    curve = calibration.models.get(worker.model, {}).get(worker.tier)
    return Cascade(calibration, curve, settings.cascade.accept) if curve else None


class Judge:
    """Judges the answers of one worker."""

    def __init__(self, cascade: Cascade, higher: HigherTiers, clock: ServerClock, metrics: WorkerMetrics) -> None:
        self.cascade, self._higher, self._clock, self._metrics = cascade, higher, clock, metrics
        self.shapes: dict[str, Shape | None] = {}  # of whole answers, by route; None: its streams lack something

    def begin(self, job: Claimed, request: Request, engine: Answers) -> Judgement | None:
        """Return the judgement of a job's answer; None where it is not judged."""
        if not request.cascade or request.stream or job.is_rq or not self._higher.may_take(job):
            return None
        body = self.cascade.asking(request.endpoint, bytes(request.body))
        return Judgement(self, job, request, body, engine) if body else None

    def is_early(self, job: Claimed, max_tokens: int) -> bool:
        """Return whether an answer is judged by its beginning, as it is written."""
        after = self.cascade.after_tokens
        return after is not None and max_tokens > after and self._higher.may_take(job, attempts=_MIN_ATTEMPTS_LEFT)

    async def escalates(self, job: Claimed, confidence: float | None, answer_s: float) -> bool:
        """Return whether a job is to escalate whose answer has this confidence, and takes so long as a whole."""
        if confidence is None or confidence >= self.cascade.accept:
            self._metrics.judged("unknown" if confidence is None else "accepted").inc()
            return False
        left_s = self._clock.seconds_until(job.deadline_ms)
        has_time = left_s is None or left_s > _MIN_TIMES_LEFT * answer_s
        escalates = has_time and await self._higher.can_take(job)
        self._metrics.judged("escalates" if escalates else "kept").inc()
        return escalates


class Judgement:
    """The judgement of one job's answer, and the way to the engine that it needs."""

    def __init__(self, judge: Judge, job: Claimed, request: Request, body: bytes, engine: Answers) -> None:
        self._judge, self._job, self._engine = judge, job, engine
        self.request = msgspec.structs.replace(request, body=msgspec.Raw(body))
        self._is_shown = body == bytes(request.body)  # the client has asked for log probabilities itself
        self._max_tokens = max_tokens_of(request.endpoint, body)
        self._is_early = not self._is_shown and judge.is_early(job, self._max_tokens)
        self._margins: list[float] = []
        self._confidence: float | None = None  # of its beginning, once that is there
        self._start_s = time.perf_counter()

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        """Ask the engine; where the answer's beginning is judged, for a stream, of which the whole answer is made."""
        shapes = self._judge.shapes
        if not self._is_early or shapes.get(endpoint, b"") is None:
            return await self._engine.generate(endpoint, body, on_chunk)
        if endpoint in shapes:
            answer = await self._engine.generate(endpoint, body, self._read)
            if answer.status != 200:
                return answer
            if whole := shaped(answer.body, shapes[endpoint]):
                return msgspec.structs.replace(answer, body=whole, ttft_s=None, unsent=b"")
            shapes[endpoint] = None
        answer = await self._engine.generate(endpoint, body, on_chunk)
        if answer.status == 200:
            shapes.setdefault(endpoint, shape_of(answer.body))
        return answer

    async def end(self, outcome: Outcome, run_s: float) -> tuple[Outcome, bool]:
        """Return the outcome with its confidence, and whether the job is to escalate."""
        if outcome.state is not State.FINISHED or outcome.answer is None:
            return msgspec.structs.replace(outcome, confidence=self._confidence), False
        confidence, escalates = self._confidence, False
        if confidence is None:
            confidence = self._judge.cascade.confidence(outcome.answer)
            escalates = await self._judge.escalates(self._job, confidence, run_s)
        body = outcome.body if self._is_shown else msgspec.Raw(without_logprobs(outcome.answer))
        return msgspec.structs.replace(outcome, body=body, confidence=confidence), escalates

    async def _read(self, data: bytes) -> None:
        """Judge the answer once its beginning is there, unless that is all of it."""
        if self._confidence is not None:
            return
        chunks = [event.data for event in EventParser().feed(data)]
        for chunk in chunks:
            self._margins += margins_of(chunk)
        after = self._judge.cascade.after_tokens
        if not after or len(self._margins) < after or any(map(has_ended, chunks)):
            return
        self._confidence = self._judge.cascade.confidence_of(self._margins)
        token_s = (time.perf_counter() - self._start_s) / len(self._margins)
        if await self._judge.escalates(self._job, self._confidence, token_s * self._max_tokens):
            raise EnoughError(f"the confidence of the first {after} tokens was {self._confidence}")


def unsure(outcome: Outcome) -> Outcome:
    """Return what the history says of an execution whose answer was not sure enough."""
    error = f"the answer's confidence was {outcome.confidence}"
    return msgspec.structs.replace(
        outcome, state=State.FAILED, status=502, body=NO_BODY, code=LOW_CONFIDENCE, error=error
    )


def judge_of(
    settings: Settings, worker: Identity, higher: HigherTiers, clock: ServerClock, metrics: WorkerMetrics
) -> Judge | None:
    """Return the judge of a worker's answers; None where its tier has no calibration."""
    cascade = _cascade_of(settings, worker)
    return Judge(cascade, higher, clock, metrics) if cascade else None
