"""The metrics of a worker, made of their rows (worker_rows.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry

from bitladder.contract import Claimed, Outcome, State
from bitladder.process.metric_table import Metrics
from workers.metrics.tenant_ranking import TenantRanking
from workers.metrics.worker_rows import MAX_TENANTS, ROWS
from workers.tally import Tally

Exemplar = dict[str, str] | None
# An execution counts half in the ratio of NaN once some 700 have come after it.
_KEPT = 1 - 1 / 1000


class _Clock(Protocol):
    """The server's clock (workers/clock.py)."""

    def seconds_until(self, server_ms: int | None) -> float | None:
        """Return the seconds until a time of the server's."""


@dataclass(slots=True)
class _RqCounters:
    """What RQ's workers count of themselves; `rq info` and rq-dashboard show it."""

    finished: int = 0
    failed: int = 0
    working_s: float = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.state is State.FINISHED:
            self.finished += 1
        elif outcome.state is not State.CANCELLED:
            self.failed += 1
        self.working_s += outcome.run_ms / 1000

    def as_argument(self) -> str:
        """Return the counters as extend.lua reads them."""
        return f"{self.finished} {self.failed} {self.working_s:.3f}"


class _TenantMetrics:
    """Tokens and cost by tenant; those that use most tokens have a label of their own."""

    def __init__(self, made: Metrics) -> None:
        self._tokens = made.counters("bitladder_tenant_tokens_total")
        self._cost = made.counters("bitladder_cost_total")
        self._ranking = TenantRanking(MAX_TENANTS, self._forget)

    def add_tokens(self, tenant: str, read: int, written: int) -> None:
        """Count the tokens of a job."""
        label = self._ranking.label(tenant, read + written)
        self._tokens(label, "prompt").inc(read)
        self._tokens(label, "completion").inc(written)

    def add_cost(self, tenant: str, cost: float) -> None:
        """Count an attributed cost."""
        self._cost(self._ranking.label(tenant, 0)).inc(cost)

    def _forget(self, tenant: str) -> None:
        self._tokens.forget(tenant)
        self._cost.forget(tenant)


class _TakenMetrics:
    """Which checkpoint and settings a worker goes by."""

    def __init__(self, made: Metrics) -> None:
        self.release = made.gauge("bitladder_worker_release_version")
        self.live_revision = made.gauge("bitladder_worker_live_settings_revision")
        self.refused = made.gauge("bitladder_worker_changes_refused")


class _NanRatio:
    """Which part of an engine's requests had NaN: the older ones count less and less."""

    def __init__(self) -> None:
        self._requests = self._corrupted = 0.0

    def note(self, requests: int, corrupted: int) -> None:
        """Add a request that ended, or requests of those before that were seen to be corrupted."""
        self._requests = self._requests * _KEPT**requests + requests
        self._corrupted = self._corrupted * _KEPT**requests + corrupted

    @property
    def ratio(self) -> float:
        return min(1.0, self._corrupted / max(1.0, self._requests))


class WorkerMetrics:
    """The metrics of one worker, with its model and tier as labels."""

    def __init__(self, model: str, tier: str, clock: _Clock | None = None) -> None:
        self.registry = CollectorRegistry()
        self.rq, self.tally = _RqCounters(), Tally()
        self.model = model
        self.clock = clock
        self.engine_exposition = ""  # the engine's own metrics, as last read; '' while it does not answer
        made = Metrics(ROWS, self.registry, {"model": model, "tier": tier})
        self._make_jobs(made)
        self._make_engine(made)
        self.in_flight = made.gauge("bitladder_worker_in_flight")
        self.slots = made.gauge("bitladder_worker_slots")
        self.taken = _TakenMetrics(made)
        self.suspended = made.gauge("bitladder_worker_suspended")
        self.ready = made.gauge("bitladder_worker_ready")
        self.rent = made.counter("bitladder_rent_total")
        self.tenants = _TenantMetrics(made)

    def _make_jobs(self, made: Metrics) -> None:
        self.ended = made.counters("bitladder_jobs_ended_total")
        self.overflowed = made.counters("bitladder_jobs_overflowed_total")
        self.below_floor = made.counters("bitladder_jobs_below_floor_total")
        self.requeued = made.counters("bitladder_jobs_requeued_total")
        self.dead_lettered = made.counters("bitladder_jobs_dead_lettered_total")
        self.dropped = made.counter("bitladder_jobs_dropped_total")
        self.fenced = made.counter("bitladder_jobs_fenced_total")
        self.unstored = made.counter("bitladder_chunks_unstored_total")
        self.queue_wait = made.histogram("bitladder_queue_wait_seconds")
        self.ttft = made.histogram("bitladder_time_to_first_token_seconds")
        self.run = made.histogram("bitladder_run_seconds")
        self.total = made.histogram("bitladder_job_seconds")
        self.deadline_used = made.histogram("bitladder_deadline_used_ratio")
        self.attempts = made.histogram("bitladder_job_attempts")
        self.tokens = made.counters("bitladder_tokens_total")

    def _make_engine(self, made: Metrics) -> None:
        self.faults = made.counter("bitladder_engine_faults_total")
        self._corrupted = made.counters("bitladder_engine_corrupted_total")
        self._nan = _NanRatio()
        made.gauge("bitladder_engine_nan_ratio").set_function(lambda: self._nan.ratio)
        self.degenerate = made.counters("bitladder_outputs_degenerate_total")
        self.judged = made.counters("bitladder_answers_judged_total")
        self.restarts = made.counters("bitladder_engine_restarts_total")
        self.reduced = made.gauge("bitladder_engine_start_reduced")
        self.pause = made.gauge("bitladder_engine_pause_seconds")
        self.breaker = made.gauge("bitladder_breaker_state")

    def count_answer(self) -> None:
        """Count a request that the engine has ended, for the ratio of NaN."""
        self._nan.note(1, 0)

    def count_corrupted(self, seen_by: str) -> None:
        """Count a request with NaN: the engine's counter tells it after the request has ended."""
        self._corrupted(seen_by).inc()
        self._nan.note(0, 1)

    def count_end(self, job: Claimed, outcome: Outcome, tenant: str, exemplar: Exemplar = None) -> None:
        """Count a job that this worker has ended; `exemplar`: of the trace of its spans."""
        self.rq.add(outcome)
        self.tally.add(outcome)
        self.ended(outcome.state).inc()
        self.queue_wait.observe(outcome.queue_ms / 1000, exemplar)
        self.run.observe(outcome.run_ms / 1000, exemplar)
        self.attempts.observe(outcome.attempts)
        taken_s = -(self.clock.seconds_until(job.enqueued_ms) or 0.0) if self.clock else outcome.queue_ms / 1000
        self.total.observe(taken_s, exemplar)
        if job.deadline_ms is not None and (limit_ms := job.deadline_ms - job.enqueued_ms) > 0:
            self.deadline_used.observe(taken_s * 1000 / limit_ms)
        read, written = outcome.usage.prompt_tokens, outcome.usage.completion_tokens
        if read or written:
            self.tokens("prompt").inc(read)
            self.tokens("completion").inc(written)
            self.tenants.add_tokens(tenant, read, written)
        if outcome.ttft_ms is not None:
            self.ttft.observe(outcome.ttft_ms / 1000, exemplar)
        if outcome.overflowed_from:
            self.overflowed(outcome.overflowed_from).inc()
        if outcome.served_below_floor:
            self.below_floor(outcome.floor or "").inc()

    def count_lost(self) -> None:
        """Count a job whose lease this worker has lost."""
        self.fenced.inc()
        self.tally.add_lost()

    def count_expired(self, count: int) -> None:
        """Count jobs whose deadline had passed when they would have been claimed."""
        self.ended(State.EXPIRED).inc(count)
        for _ in range(count):
            self.deadline_used.observe(1)
