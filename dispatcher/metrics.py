"""Every metric of the intake."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bitladder.process.process_metrics import SECONDS, add_process_metrics

Metric = TypeVar("Metric", Counter, Histogram)


def _children(metric: Metric) -> Callable[..., Metric]:
    """Return `metric.labels`, which remembers: the lookup takes a lock and hashes the values on every call."""
    return cache(metric.labels)


class IntakeMetrics:
    """The metrics of one intake process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        add_process_metrics(self.registry)
        self.overview = _OverviewMetrics(self.registry)
        self.routed = self._counter(
            "bitladder_requests_routed", "How many requests were routed to each floor tier?", "model", "floor", "lane"
        )
        self.refused = self._counter(
            "bitladder_requests_refused", "How many requests were refused at the intake, by error code?", "code"
        )
        self.served = self._counter(
            "bitladder_requests_served",
            "How many awaited and streamed requests were answered, by tier and end?",
            "model",
            "tier",
            "state",
        )
        self.broken_streams = self._counter(
            "bitladder_streams_broken", "How many streams did the intake end with an error, by its code?", "code"
        )
        self.captured = self._counter(
            "bitladder_prompts_captured",
            "How many prompts were written for calibration, and how many dropped because writing was too slow?",
            "what",
        )
        self.entropy = Histogram(
            "bitladder_prompt_entropy",
            "How many bits per byte do prompts have?",
            buckets=(2, 3, 3.5, 4, 4.25, 4.5, 4.75, 5, 5.5, 6, 7, 8),
            registry=self.registry,
        )
        self.routing = Histogram(
            "bitladder_routing_seconds",
            "How long do score and policy take?",
            buckets=(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2),
            registry=self.registry,
        )
        self.awaited = _children(
            Histogram(
                "bitladder_awaited_seconds",
                "How long do awaited and streamed requests take, from the first byte to the outcome?",
                ("model", "tier"),
                buckets=SECONDS,
                registry=self.registry,
            )
        )
        # Every replica reports the same queues: aggregate these with max, never with sum.
        self.depth = Gauge(
            "bitladder_queue_depth", "How many jobs wait in a queue?", ("queue",), registry=self.registry
        )
        self.in_flight = Gauge(
            "bitladder_queue_in_flight",
            "How many jobs of a queue are running?",
            ("queue",),
            registry=self.registry,
        )
        self.oldest = Gauge(
            "bitladder_queue_oldest_age_seconds",
            "How old is the head of a queue?",
            ("queue",),
            registry=self.registry,
        )
        self.live = Gauge(
            "bitladder_live_workers",
            "How many workers of a tier can answer?",
            ("model", "tier"),
            registry=self.registry,
        )
        self.shifted = Gauge(
            "bitladder_tier_shifted",
            "Do higher tiers serve a tier's jobs (1), because too many of them break there?",
            ("model", "tier"),
            registry=self.registry,
        )
        self.release_version = Gauge(
            "bitladder_release_version",
            "Which published release does the intake show (0: none)?",
            registry=self.registry,
        )
        self.refused_releases = Gauge(
            "bitladder_releases_refused",
            "How many changes of the settings' files, or of the live settings, could not be taken since the start?",
            registry=self.registry,
        )
        self.live_revision = Gauge(
            "bitladder_live_settings_revision",
            "Which revision of the live settings does the intake go by (0: none)?",
            registry=self.registry,
        )

    def _counter(self, name: str, question: str, *labels: str) -> Callable[..., Counter]:
        return _children(Counter(name, question, labels, registry=self.registry))


class _OverviewMetrics:
    """What holds for all models, as every replica sees it: aggregate these with max, never with sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.suspended = Gauge("bitladder_suspended", "Do all claims pause (1)?", registry=registry)
        self.paused = Gauge("bitladder_paused", "Is this paused by an operator (1)?", ("scope",), registry=registry)
        self.unknown_queues = Gauge(
            "bitladder_unknown_queues", "How many queues are there that no tier serves?", registry=registry
        )
        self.unknown_depth = Gauge(
            "bitladder_unknown_queue_depth", "How many jobs wait in queues that no tier serves?", registry=registry
        )


def withdrawals_gauge(registry: CollectorRegistry) -> Gauge:
    """Return the gauge of the abandoned jobs that one intake has still to cancel."""
    return Gauge(
        "bitladder_withdrawals_waiting",
        "How many abandoned jobs are still to be cancelled?",
        registry=registry,
    )


class BatchMetrics:
    """The batches that one intake runs."""

    def __init__(self, registry: CollectorRegistry, running: Callable[[], int]) -> None:
        self.lines = _children(
            Counter(
                "bitladder_batch_lines",
                "How many lines of batches have a result: completed, failed, expired or cancelled?",
                ("result",),
                registry=registry,
            )
        )
        self.ended = _children(
            Counter("bitladder_batches_ended", "How many batches have ended?", ("status",), registry=registry)
        )
        held = Gauge("bitladder_batches", "How many batches does the intake run?", registry=registry)
        held.set_function(running)


class WebhookMetrics:
    """Deliveries of this intake; of what waits and is disabled every replica sees the same."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = _children(
            Counter(
                "bitladder_webhook_deliveries",
                "How many attempts at deliveries of webhooks were made, and deliveries dropped, by result?",
                ("result",),
                registry=registry,
            )
        )
        self.backlog_age = Gauge(
            "bitladder_webhook_backlog_age_seconds",
            "For how long is the oldest delivery of a webhook due?",
            registry=registry,
        )
        self.disabled = Gauge(
            "bitladder_webhook_endpoints_disabled",
            "How many endpoints of webhooks are disabled, because they have failed for long or are gone?",
            registry=registry,
        )


class AdmissionMetrics:
    """What the admission goes by, as every replica sees it: aggregate these with max, never with sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rate = Gauge(
            "bitladder_tier_service_rate",
            "How many jobs of a tier's queues end in a second while some wait? 0: not known.",
            ("model", "tier"),
            registry=registry,
        )
        self.answer = Gauge(
            "bitladder_expected_answer_seconds",
            "After how long would a job that comes in now be answered? 0: not known.",
            ("model", "tier", "lane"),
            registry=registry,
        )
        self.wait_error = Gauge(
            "bitladder_expected_wait_error",
            "How far was the expected wait of the last jobs off, by the real one, in the median?",
            ("model", "tier", "lane"),
            registry=registry,
        )
        self.memory = Gauge(
            "bitladder_redis_memory_share",
            "How much of Redis' maxmemory is used? 0: there is no limit.",
            registry=registry,
        )
