"""Every metric of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bitladder.contract import Outcome, State
from bitladder.process.process_metrics import SECONDS
from bitladder.queue.calls.spending import OTHERS
from workers.tally import Tally

Metric = TypeVar("Metric", Counter, Gauge, Histogram)
# Tenants that have a label; further ones share another.
_MAX_TENANTS = 50
_ENDS = tuple(state for state in State if state.is_terminal)


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


class _CostMetrics:
    """What a worker spends."""

    def __init__(
        self, single: Callable[..., Counter], counters: Callable[[str, str, str], Callable[[str], Counter]]
    ) -> None:
        self.rent = single(
            Counter, "bitladder_rent", "What has the worker's time cost, idle or not, in the currency of its price?"
        )
        self._cost = counters(
            "bitladder_cost", "Which part of the engine's time, as money, did each tenant's jobs use?", "tenant"
        )
        self._tenants: set[str] = set()

    def add(self, tenant: str, cost: float) -> None:
        """Count an attributed cost; the tenants that come first have a label of their own."""
        if len(self._tenants) < _MAX_TENANTS:
            self._tenants.add(tenant)
        self._cost(tenant if tenant in self._tenants else OTHERS).inc(cost)


class _TakenMetrics:
    """Which checkpoint and settings a worker goes by."""

    def __init__(self, gauge: Callable[[type[Gauge], str, str], Gauge]) -> None:
        self.release = gauge(
            Gauge, "bitladder_worker_release_version", "Which published release has the worker's checkpoint (0: none)?"
        )
        self.live_revision = gauge(
            Gauge,
            "bitladder_worker_live_settings_revision",
            "Which revision of the live settings does the worker go by (0: none)?",
        )
        self.refused = gauge(
            Gauge,
            "bitladder_worker_changes_refused",
            "How many changes of its files, or of the live settings, could the worker not take since its start?",
        )


class WorkerMetrics:
    """The metrics of one worker, with its model and tier as labels.

    The child of each label value is looked up once: `labels()` takes a lock and hashes its values on every call.
    """

    def __init__(self, model: str, tier: str) -> None:
        self.registry = CollectorRegistry()
        self.rq, self.tally = _RqCounters(), Tally()
        self.model = model
        self.engine_exposition = ""  # the engine's own metrics, as last read; '' while it does not answer
        self._labels = (model, tier)
        self.ended = self._counters("bitladder_jobs_ended", "How many jobs ended, by state?", "state", *_ENDS)
        self.overflowed, self.below_floor = (
            self._counters("bitladder_jobs_overflowed", "How many jobs of lower tiers were served here?", "origin"),
            self._counters(
                "bitladder_jobs_below_floor",
                "How many jobs of higher tiers were served here, below their floor, with their clients' consent?",
                "origin",
            ),
        )
        self.requeued = self._counters("bitladder_jobs_requeued", "How many jobs were requeued, by reason?", "reason")
        self.dead_lettered = self._counters(
            "bitladder_jobs_dead_lettered", "How many jobs went to the dead letters, by error code?", "code"
        )
        self.dropped = self._one(
            Counter, "bitladder_jobs_dropped", "How many ids in a queue had no job record any more?"
        )
        self.tokens = self._counters("bitladder_tokens", "How many tokens were read and written?", "kind")
        self.fenced = self._one(
            Counter, "bitladder_jobs_fenced", "How many outcomes were refused because the lease was lost?"
        )
        self.unstored = self._one(
            Counter,
            "bitladder_chunks_unstored",
            "How many chunks of streams were not stored because Redis had no memory?",
        )
        self.faults = self._one(Counter, "bitladder_engine_faults", "How many requests broke in the engine?")
        self.corrupted = self._counters(
            "bitladder_engine_corrupted",
            "How many requests had NaN or infinity, by where it was seen (the engine's counter, the answer)?",
            "seen_by",
        )
        self.degenerate = self._counters(
            "bitladder_outputs_degenerate", "How many answers were a token loop, gibberish or empty, by kind?", "kind"
        )
        self.judged = self._counters(
            "bitladder_answers_judged",
            "How many answers of a cascade were accepted, kept for want of another, unknown, or made the job escalate?",
            "verdict",
        )
        self.restarts = self._counters(
            "bitladder_engine_restarts", "How often was the engine started again, by reason?", "reason"
        )
        self.reduced = self._one(
            Gauge, "bitladder_engine_start_reduced", "Does the engine run with less memory than configured (1)?"
        )
        self.pause = self._one(
            Gauge, "bitladder_engine_pause_seconds", "For how long does the worker still send the busy engine nothing?"
        )
        self.breaker = self._one(
            Gauge,
            "bitladder_breaker_state",
            "Is the engine's circuit breaker closed (0), half-open (1) or open (2)?",
        )
        self.queue_wait = self._seconds("bitladder_queue_wait_seconds", "How long did jobs wait in a queue?")
        self.ttft = self._seconds(
            "bitladder_time_to_first_token_seconds",
            "How long did streamed jobs wait for the engine's first token?",
        )
        self.run = self._seconds("bitladder_run_seconds", "How long did the engine run jobs?")
        self.in_flight = self._one(Gauge, "bitladder_worker_in_flight", "How many jobs does the worker hold?")
        self.slots = self._one(Gauge, "bitladder_worker_slots", "How many jobs may the worker hold?")
        self.taken = _TakenMetrics(self._one)
        self.suspended = self._one(
            Gauge, "bitladder_worker_suspended", "Does the worker claim nothing, because claims pause (1)?"
        )
        self.ready = self._one(Gauge, "bitladder_worker_ready", "Do the engine and Redis serve (1) or not (0)?")
        self.costs = _CostMetrics(self._one, self._counters)

    def count_end(self, outcome: Outcome) -> None:
        """Count a job that this worker has ended."""
        self.rq.add(outcome)
        self.tally.add(outcome)
        self.ended(outcome.state).inc()
        self.queue_wait.observe(outcome.queue_ms / 1000)
        self.run.observe(outcome.run_ms / 1000)
        self.tokens("prompt").inc(outcome.usage.prompt_tokens)
        self.tokens("completion").inc(outcome.usage.completion_tokens)
        if outcome.ttft_ms is not None:
            self.ttft.observe(outcome.ttft_ms / 1000)
        if outcome.overflowed_from:
            self.overflowed(outcome.overflowed_from).inc()
        if outcome.served_below_floor:
            self.below_floor(outcome.floor or "").inc()

    def count_lost(self) -> None:
        """Count a job whose lease this worker has lost."""
        self.fenced.inc()
        self.tally.add_lost()

    def _counters(self, name: str, question: str, label: str, *first: str) -> Callable[[str], Counter]:
        """Return a counter's child by its label's value. The first ones are there from the start: a rate must see 0."""
        metric = Counter(name, question, ("model", "tier", label), registry=self.registry)
        children = cache(lambda value: metric.labels(*self._labels, value))
        for value in first:
            children(value)
        return children

    def _one(self, kind: type[Metric], name: str, question: str) -> Metric:
        return kind(name, question, ("model", "tier"), registry=self.registry).labels(*self._labels)

    def _seconds(self, name: str, question: str) -> Histogram:
        return Histogram(name, question, ("model", "tier"), buckets=SECONDS, registry=self.registry).labels(
            *self._labels
        )
