"""The cascade at one worker: asks its engine how sure it was, and lets jobs escalate where that was too little."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bitladder.contract import NO_BODY, Claimed, Outcome, Request, State
from bitladder.errors import ConfigError
from bitladder.routing.cascade import MAX_FILE_BYTES, Cascade, read_calibration, without_logprobs
from bitladder.settings.sections import Settings
from workers.clock import ServerClock
from workers.handling.higher_tiers import HigherTiers
from workers.identity import Identity
from workers.metrics.worker_metrics import WorkerMetrics

# A job escalates only if so many times its first execution's time are left to its deadline: a higher tier is slower.
_MIN_TIMES_LEFT = 2.0


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
        self._cascade, self._higher, self._clock, self._metrics = cascade, higher, clock, metrics

    def asking(self, job: Claimed, request: Request) -> Request | None:
        """Return the request that asks for what the judgement needs; None where the answer is not judged."""
        if not request.cascade or request.stream or job.is_rq or not self._higher.may_take(job):
            return None
        body = self._cascade.asking(request.endpoint, bytes(request.body))
        return msgspec.structs.replace(request, body=msgspec.Raw(body)) if body else None

    async def judge(self, job: Claimed, outcome: Outcome, *, is_shown: bool, run_s: float) -> tuple[Outcome, bool]:
        """Return the outcome with its confidence, and whether the job is to escalate.

        `is_shown`: the client has asked for log probabilities itself.
        """
        if outcome.state is not State.FINISHED or outcome.answer is None:
            return outcome, False
        confidence = self._cascade.confidence(outcome.answer)
        body = outcome.body if is_shown else msgspec.Raw(without_logprobs(outcome.answer))
        judged = msgspec.structs.replace(outcome, body=body, confidence=confidence)
        if confidence is None or confidence >= self._cascade.accept:
            self._metrics.judged("unknown" if confidence is None else "accepted").inc()
            return judged, False
        left_s = self._clock.seconds_until(job.deadline_ms)
        has_time = left_s is None or left_s > _MIN_TIMES_LEFT * run_s
        escalates = has_time and await self._higher.can_take(job)
        self._metrics.judged("escalates" if escalates else "kept").inc()
        return judged, escalates


def unsure(outcome: Outcome) -> Outcome:
    """Return what the history says of an execution whose answer was not sure enough."""
    error = f"the answer's confidence was {outcome.confidence}"
    return msgspec.structs.replace(
        outcome, state=State.FAILED, status=502, body=NO_BODY, code="low_confidence", error=error
    )


def judge_of(
    settings: Settings, worker: Identity, higher: HigherTiers, clock: ServerClock, metrics: WorkerMetrics
) -> Judge | None:
    """Return the judge of a worker's answers; None where its tier has no calibration."""
    cascade = _cascade_of(settings, worker)
    return Judge(cascade, higher, clock, metrics) if cascade else None
