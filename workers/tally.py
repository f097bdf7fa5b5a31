"""What a worker has done since its start and of late, as it reports it once a second."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import NamedTuple

from bitladder.contract import Outcome
from bitladder.queue.calls.worker_report import (
    LOST_WINDOW_S,
    OVERFLOW_WINDOW_S,
    RATE_WINDOW_S,
    Breaker,
    WorkerReport,
)
from bitladder.settings.models_section import TierSettings
from bitladder.settings.sections import Settings

# Lost jobs whose time is kept: a worker that reaps more in ten minutes says that it was so many.
_MAX_LOST = 10_000


class _Mark(NamedTuple):
    """The counts at one report."""

    at_s: float
    jobs: int
    tokens: int
    overflow: dict[str, int]


class Tally:
    """Counts of one worker. The lease thread adds lost jobs, the event loop all else."""

    def __init__(self) -> None:
        self.breaker = Breaker.CLOSED
        self._checkpoint = ""
        self._release: int | None = None
        self._ready_since_ms, self._was_ready = 0, False
        self._jobs = self._tokens = 0
        self._overflow: Counter[str] = Counter()
        self._lost: deque[float] = deque(maxlen=_MAX_LOST)
        self._marks = deque([_Mark(time.monotonic(), 0, 0, {})])

    def add(self, outcome: Outcome) -> None:
        """Count a job that ended here."""
        self._jobs += 1
        self._tokens += outcome.usage.completion_tokens
        if outcome.overflowed_from:
            self._overflow[outcome.overflowed_from] += 1

    def add_lost(self, count: int = 1) -> None:
        """Count jobs whose lease was lost."""
        self._lost.extend([time.monotonic()] * min(count, _MAX_LOST))

    def serve(self, settings: Settings, tier: TierSettings) -> None:
        """Note what the worker serves."""
        engine = settings.worker.engine
        self._checkpoint = tier.checkpoint if engine == "vllm" else engine
        self._release = tier.published.version if tier.published else None

    def report(
        self, slots: int, ready_ms: int = 0, in_flight: int | None = None, *, is_draining: bool = False
    ) -> WorkerReport:
        """Return what to say now; it is the counts that the next reports' rates begin at.

        `ready_ms`: what Redis' clock shows where the worker is ready, else 0.
        """
        self._ready_since_ms = ready_ms and (self._ready_since_ms or ready_ms)
        self._was_ready = self._was_ready or ready_ms > 0
        now = _Mark(time.monotonic(), self._jobs, self._tokens, dict(self._overflow))
        while self._lost and self._lost[0] < now.at_s - LOST_WINDOW_S:
            self._lost.popleft()
        # The first mark is the last one from before the longest window.
        while len(self._marks) > 1 and self._marks[1].at_s <= now.at_s - OVERFLOW_WINDOW_S:
            self._marks.popleft()
        oldest, since = self._marks[0], self._since(now.at_s - RATE_WINDOW_S)
        span_s = max(1.0, now.at_s - since.at_s)
        self._marks.append(now)
        came = {tier: count - oldest.overflow.get(tier, 0) for tier, count in now.overflow.items()}
        return WorkerReport(
            slots=slots,
            breaker=self.breaker,
            jobs=now.jobs,
            tokens=now.tokens,
            overflow=now.overflow,
            jobs_per_s=round((now.jobs - since.jobs) / span_s, 3),
            tokens_per_s=round((now.tokens - since.tokens) / span_s, 2),
            overflow_in={tier: count for tier, count in came.items() if count},
            lost=len(self._lost),
            in_flight=in_flight,
            checkpoint=self._checkpoint,
            release=self._release,
            ready_since_ms=self._ready_since_ms,
            was_ready=self._was_ready,
            is_draining=is_draining,
        )

    def _since(self, at_s: float) -> _Mark:
        """Return the last mark that is so old, else the first one."""
        return next((mark for mark in reversed(self._marks) if mark.at_s <= at_s), self._marks[0])
