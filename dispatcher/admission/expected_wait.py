"""When a waiting job is expected to be claimed, and how far that was off: forecasts beside what became of them."""

from __future__ import annotations

import time

from bitladder.contract import ExpectedWait, JobView, Outcome, State, Submission
from bitladder.queue_name import QueueName
from bitladder.routing.forecast import RANK, forecast, wait_at
from bitladder.routing.wait_errors import WaitErrors
from dispatcher.admission.admission import Admission
from dispatcher.metrics.intake_metrics import AdmissionMetrics

# One job of a queue in so many seconds is followed: those that come together wait alike, and would only say the same.
_SPACED_S = 0.25
# Jobs whose end is awaited, to see whether their forecast was right; beyond, the oldest are forgotten.
_MAX_OPEN = 10_000
# The metric follows every so many ends.
_EXPORTED_EVERY = 16

Lane = tuple[str, str, str]  # model, tier, lane


class ExpectedWaits:
    """The forecasts of one intake process."""

    def __init__(self, admission: Admission, metrics: AdmissionMetrics) -> None:
        self._admission, self._metrics = admission, metrics
        self._open: dict[str, tuple[Lane, float]] = {}
        self._errors: dict[Lane, WaitErrors] = {}
        self._next_s: dict[str, float] = {}  # by queue, of which there are few
        self._ends = 0

    def expect(self, queue: QueueName, wait_s: float) -> ExpectedWait:
        """Return what a forecast means, by how far earlier ones of this tier and lane were off."""
        return self._errors_of((queue.model, queue.tier, queue.lane)).expect(wait_s)

    def of_waiting(self, view: JobView) -> ExpectedWait | None:
        """Return how much longer a job waits; None where it does not wait, or that is not known."""
        if view.state is not State.QUEUED or view.position is None:
            return None
        try:
            name = QueueName.parse(view.queue)
        except ValueError:
            return None
        known = self._admission.load_of((name.model, name.tier))
        if known is None:
            return None
        wait_s = wait_at(known[0], RANK[name.lane], (view.position - 1) * view.tenants)
        return None if wait_s is None else self.expect(name, wait_s)

    def of_lane(self, model: str, tier: str, lane: str) -> float | None:
        """Return how long a job that comes into this lane now waits; None where that is not known."""
        return self._forecast(str(QueueName(model, tier, lane)))[1]

    def accepted(self, job: Submission) -> None:
        """Remember what a job that was just accepted is expected to wait, where its tier has a backlog."""
        now_s = time.monotonic()
        if now_s < self._next_s.get(job.queue, 0.0):
            return
        self._next_s[job.queue] = now_s + _SPACED_S
        lane, wait_s = self._forecast(job.queue)
        if wait_s is None:
            return
        self._open[job.job_id] = (lane, wait_s)
        if len(self._open) > _MAX_OPEN:
            del self._open[next(iter(self._open))]

    def ended(self, job_id: str, outcome: Outcome) -> None:
        """Compare the forecast of a job with its wait, once."""
        lane, wait_s = self._open.pop(job_id, (None, 0.0))
        if lane is None or outcome.state is not State.FINISHED or outcome.attempts != 1:
            return
        errors = self._errors_of(lane)
        errors.add(wait_s, outcome.queue_ms / 1000)
        self._ends += 1
        if self._ends % _EXPORTED_EVERY == 0 and (error := errors.median_error) is not None:
            self._metrics.wait_error.labels(*lane).set(error)

    def _forecast(self, queue: str) -> tuple[Lane, float | None]:
        name = QueueName.parse(queue)
        known = self._admission.load_of((name.model, name.tier))
        expected = known and forecast(known[0], RANK[name.lane], known[1], known[2])
        return (name.model, name.tier, name.lane), expected.wait_s if expected else None

    def _errors_of(self, lane: Lane) -> WaitErrors:
        return self._errors.setdefault(lane, WaitErrors())
