"""The metrics of one intake process, made of their rows (intake_rows.py)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from bitladder.decision import Decision
from bitladder.process.metric_table import Metrics
from bitladder.process.process_metrics import add_process_metrics
from dispatcher.metrics.intake_rows import (
    ADMISSION_ROWS,
    BATCH_ROWS,
    ENTROPY_BOUNDS,
    OVERVIEW_ROWS,
    QUEUE_ROWS,
    REQUEST_ROWS,
    WEBHOOK_ROWS,
    WITHDRAWAL_ROWS,
)


class IntakeMetrics:
    """The metrics of one intake process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        add_process_metrics(self.registry)
        self.overview = _OverviewMetrics(self.registry)
        made = Metrics((*REQUEST_ROWS, *QUEUE_ROWS), self.registry)
        self.routed = made.counters("bitladder_requests_routed_total")
        self.decisions = made.counters("bitladder_decisions_total")
        self.canary = made.counters("bitladder_canary_requests_total")
        self.refused = made.counters("bitladder_requests_refused_total")
        self.served = made.counters("bitladder_requests_served_total")
        self.broken_streams = made.counters("bitladder_streams_broken_total")
        self.captured = made.counters("bitladder_prompts_captured_total")
        self.entropy = made.histogram("bitladder_prompt_entropy")
        self.routing = made.histogram("bitladder_routing_seconds")
        self.awaited = made.histograms("bitladder_awaited_seconds")
        self._awaited_by_entropy = made.histograms("bitladder_awaited_by_entropy_seconds")
        # Every replica reports the same queues: aggregate these with max, never with sum.
        self.depth = made.gauge("bitladder_queue_depth")
        self.in_flight = made.gauge("bitladder_queue_in_flight")
        self.oldest = made.gauge("bitladder_queue_oldest_age_seconds")
        self.live = made.gauge("bitladder_live_workers")
        self.shifted = made.gauge("bitladder_tier_shifted")
        self.dead_letters = made.gauge("bitladder_dead_letters")
        self.release_version = made.gauge("bitladder_release_version")
        self.live_revision = made.gauge("bitladder_live_settings_revision")
        self.refused_releases = made.gauge("bitladder_releases_refused")

    def count_decision(self, model: str, lane: str, decision: Decision) -> None:
        """Count a request by where it was routed, and why."""
        self.routed(model, decision.floor, lane).inc()
        self.decisions(model, decision.floor, decision.policy, decision.rule).inc()
        if decision.score.entropy is not None:
            self.entropy.observe(decision.score.entropy)

    def observe_entropy(self, decision: Decision, seconds: float) -> None:
        """Observe how long an awaited request took, by the class of its prompt's entropy."""
        if decision.score.entropy is not None:
            bound = ENTROPY_BOUNDS[min(bisect_left(ENTROPY_BOUNDS, decision.score.entropy), len(ENTROPY_BOUNDS) - 1)]
            self._awaited_by_entropy(f"{bound:g}").observe(seconds)


class _OverviewMetrics:
    """What holds for all models, as every replica sees it: aggregate these with max, never with sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Metrics(OVERVIEW_ROWS, registry)
        self.suspended = made.gauge("bitladder_suspended")
        self.paused = made.gauge("bitladder_paused")
        self.unknown_queues = made.gauge("bitladder_unknown_queues")
        self.unknown_depth = made.gauge("bitladder_unknown_queue_depth")


def withdrawals_gauge(registry: CollectorRegistry) -> Gauge:
    """Return the gauge of the abandoned jobs that one intake has still to cancel."""
    return Metrics(WITHDRAWAL_ROWS, registry).gauge("bitladder_withdrawals_waiting")


class BatchMetrics:
    """The batches that one intake runs."""

    def __init__(self, registry: CollectorRegistry, running: Callable[[], int]) -> None:
        made = Metrics(BATCH_ROWS, registry)
        self.lines = made.counters("bitladder_batch_lines_total")
        self.ended = made.counters("bitladder_batches_ended_total")
        made.gauge("bitladder_batches").set_function(running)


class WebhookMetrics:
    """Deliveries of this intake; of what waits and is disabled every replica sees the same."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Metrics(WEBHOOK_ROWS, registry)
        self.deliveries = made.counters("bitladder_webhook_deliveries_total")
        self.backlog_age = made.gauge("bitladder_webhook_backlog_age_seconds")
        self.disabled = made.gauge("bitladder_webhook_endpoints_disabled")


class AdmissionMetrics:
    """What the admission goes by, as every replica sees it: aggregate these with max, never with sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Metrics(ADMISSION_ROWS, registry)
        self.rate = made.gauge("bitladder_tier_service_rate")
        self.answer = made.gauge("bitladder_expected_answer_seconds")
        self.wait_error = made.gauge("bitladder_expected_wait_error")
        self.memory = made.gauge("bitladder_redis_memory_share")
