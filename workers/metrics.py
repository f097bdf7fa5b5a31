"""Every metric of a worker."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class WorkerMetrics:
    """The metrics of one worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ended = Counter(
            "bitladder_jobs_ended",
            "How many jobs ended, by state?",
            ("model", "tier", "state"),
            registry=self.registry,
        )
        self.overflowed = Counter(
            "bitladder_jobs_overflowed",
            "How many jobs of lower tiers were served here?",
            ("model", "tier", "origin"),
            registry=self.registry,
        )
        self.returned = Counter(
            "bitladder_jobs_returned",
            "How many jobs were given back, by reason?",
            ("model", "tier", "reason"),
            registry=self.registry,
        )
        self.fenced = Counter(
            "bitladder_jobs_fenced",
            "How many outcomes were refused because the lease was lost?",
            ("model", "tier"),
            registry=self.registry,
        )
        self.faults = Counter(
            "bitladder_engine_faults",
            "How many requests broke in the engine?",
            ("model", "tier"),
            registry=self.registry,
        )
        self.tokens = Counter(
            "bitladder_tokens",
            "How many tokens were read and written?",
            ("model", "tier", "kind"),
            registry=self.registry,
        )
        self.queue_wait = Histogram(
            "bitladder_queue_wait_seconds",
            "How long did jobs wait?",
            ("model", "tier"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.ttft = Histogram(
            "bitladder_time_to_first_token_seconds",
            "How long did streamed jobs wait in the engine for a token?",
            ("model", "tier"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.run = Histogram(
            "bitladder_run_seconds",
            "How long did jobs run?",
            ("model", "tier"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "bitladder_worker_in_flight",
            "How many jobs does the worker hold?",
            ("model", "tier"),
            registry=self.registry,
        )
        self.slots = Gauge(
            "bitladder_worker_slots",
            "How many jobs may the worker hold?",
            ("model", "tier"),
            registry=self.registry,
        )
        self.ready = Gauge(
            "bitladder_worker_ready",
            "Does the engine answer (1) or not (0)?",
            ("model", "tier"),
            registry=self.registry,
        )
