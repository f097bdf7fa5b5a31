"""Every metric of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bitladder.contract import Outcome, State

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


@dataclass(slots=True)
class Tally:
    """What a worker of RQ counts of itself; `rq info` and rq-dashboard show it."""

    finished: int = 0
    failed: int = 0
    working_s: float = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.state is State.FINISHED:
            self.finished += 1
        elif outcome.state is not State.CANCELLED:
            self.failed += 1
        self.working_s += outcome.run_ms / 1000

    def as_words(self) -> str:
        """Return them as extend.lua reads them."""
        return f"{self.finished} {self.failed} {self.working_s:.3f}"


class WorkerMetrics:
    """The metrics of one worker process, bound to its model and tier.

    Children are looked up once: `labels()` takes a lock and hashes its values on every call.
    """

    def __init__(self, model: str, tier: str) -> None:
        self.registry = CollectorRegistry()
        self.model = model
        self._own = (model, tier)
        self.ended = self._counters("bitladder_jobs_ended", "How many jobs ended, by state?", "state")
        self.overflowed = self._counters(
            "bitladder_jobs_overflowed", "How many jobs of lower tiers were served here?", "origin"
        )
        self.returned = self._counters("bitladder_jobs_returned", "How many jobs were requeued, by reason?", "reason")
        self.dead_lettered = self._counters(
            "bitladder_jobs_dead_lettered", "How many jobs went to the dead letters, by error code?", "code"
        )
        self.dropped = self._one(
            Counter, "bitladder_jobs_dropped", "How many ids in a queue belonged to no job any more?"
        )
        self.tokens = self._counters("bitladder_tokens", "How many tokens were read and written?", "kind")
        self.fenced = self._one(
            Counter, "bitladder_jobs_fenced", "How many outcomes were refused because the lease was lost?"
        )
        self.unstored = self._one(
            Counter,
            "bitladder_chunks_unstored",
            "How many chunks of streams were given up for want of memory in Redis?",
        )
        self.faults = self._one(Counter, "bitladder_engine_faults", "How many requests broke in the engine?")
        self.corrupted = self._counters(
            "bitladder_engine_corrupted",
            "How many requests got numbers that are none, by who saw it (the engine's counter, the answer)?",
            "seen_by",
        )
        self.degenerate = self._counters(
            "bitladder_outputs_degenerate", "How many answers were a token loop or gibberish?", "kind"
        )
        self.restarts = self._counters(
            "bitladder_engine_restarts", "How often was the engine started again, by reason?", "reason"
        )
        self.reduced = self._one(
            Gauge, "bitladder_engine_start_reduced", "Runs the engine with less memory than it was told to take (1)?"
        )
        self.pause = self._one(
            Gauge, "bitladder_engine_pause_seconds", "How long is the engine still left alone, as it asked to be?"
        )
        self.breaker = self._one(
            Gauge, "bitladder_breaker_state", "Is the engine trusted with jobs (0), being tried (1) or left alone (2)?"
        )
        self.queue_wait = self._seconds("bitladder_queue_wait_seconds", "How long did jobs wait?")
        self.ttft = self._seconds(
            "bitladder_time_to_first_token_seconds", "How long did streamed jobs wait in the engine for a token?"
        )
        self.run = self._seconds("bitladder_run_seconds", "How long did jobs run?")
        self.in_flight = self._one(Gauge, "bitladder_worker_in_flight", "How many jobs does the worker hold?")
        self.slots = self._one(Gauge, "bitladder_worker_slots", "How many jobs may the worker hold?")
        self.ladder = self._one(
            Gauge, "bitladder_worker_release_version", "Which published release has the worker's checkpoint (0: none)?"
        )
        self.suspended = self._one(
            Gauge, "bitladder_worker_suspended", "Does the worker claim nothing, because of `rq suspend` (1)?"
        )
        self.ready = self._one(Gauge, "bitladder_worker_ready", "Does the engine answer (1) or not (0)?")

    def _counters(self, name: str, question: str, label: str) -> Callable[[str], Counter]:
        metric = Counter(name, question, ("model", "tier", label), registry=self.registry)
        return cache(lambda value: metric.labels(*self._own, value))

    def _one(self, kind: type[Metric], name: str, question: str) -> Metric:
        return kind(name, question, ("model", "tier"), registry=self.registry).labels(*self._own)

    def _seconds(self, name: str, question: str) -> Histogram:
        return Histogram(name, question, ("model", "tier"), buckets=SECONDS, registry=self.registry).labels(*self._own)
