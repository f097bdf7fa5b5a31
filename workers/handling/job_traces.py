"""The spans of a worker: `wait`, from acceptance to the claim, and `execute`; and what its log says of a request.

However often a job is executed, it has five spans at most: `submit` and `deliver` of the intake, and of its workers
`wait` and `execute` for the execution that ends it, and one `execute` for the first, where that failed.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import structlog

from bitladder.contract import Claimed, Outcome, Request, State
from bitladder.process.tracing import gen_ai
from workers.engines.base import TRACE_HEADERS
from workers.identity import Identity

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from bitladder.process.tracing.spans import Spans
    from workers.metrics.worker_metrics import WorkerMetrics

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


class JobTraces:
    """The traces of the jobs that one worker runs. Without `spans` it makes none, and hands on what a job carries."""

    def __init__(self, worker: Identity, metrics: WorkerMetrics, spans: Spans | None) -> None:
        self._worker, self._metrics, self.spans = worker, metrics, spans
        self._open: dict[int, tuple[Request, Span]] = {}  # by fence

    def begin(self, job: Claimed, request: Request) -> None:
        """Note that the engine is asked: its HTTP request, and lines of the log from here on, name the trace."""
        if request.request_id:
            structlog.contextvars.bind_contextvars(request_id=request.request_id)
        match = _TRACEPARENT.fullmatch(request.traceparent) if request.traceparent else None
        if match is None:
            return
        structlog.contextvars.bind_contextvars(trace_id=match[1])
        headers = {"traceparent": request.traceparent}
        if _TRACESTATE.fullmatch(request.tracestate):
            headers["tracestate"] = request.tracestate
        if self.spans:
            headers |= self._begin(job, request)
        TRACE_HEADERS.set(headers)

    def ended(self, job: Claimed, outcome: Outcome) -> dict[str, str] | None:
        """Send the spans of the execution that has ended a job; return the exemplar of its trace, if it is sampled."""
        opened = self._open.pop(job.fence, None)
        if opened is None:
            return None
        request, span = opened
        self._send_wait(job, request)
        self._end(job, span, outcome)
        context = span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}"} if context.trace_flags.sampled else None

    def requeued(self, job: Claimed, last: Outcome) -> None:
        """Send the span of an execution after which the job waits again, if it was the first."""
        opened = self._open.pop(job.fence, None)
        if opened and job.attempt == 1 and not job.has_returned:
            self._end(job, opened[1], last)

    def forget(self, job: Claimed) -> None:
        """Send nothing of an execution whose end did not count."""
        self._open.pop(job.fence, None)

    def _begin(self, job: Claimed, request: Request) -> dict[str, str]:
        from opentelemetry.trace import SpanKind  # the extra is there where tracing is on

        from bitladder.process.tracing.spans import context_from, headers_of

        assert self.spans  # noqa: S101
        parent = context_from(request.traceparent, request.tracestate)
        span = self.spans.begin("execute", SpanKind.CLIENT, parent)
        self._open[job.fence] = request, span
        return headers_of(span)

    def _send_wait(self, job: Claimed, request: Request) -> None:
        from opentelemetry.trace import SpanKind

        from bitladder.process.tracing.spans import context_from, describe

        assert self.spans  # noqa: S101
        parent = context_from(request.traceparent, request.tracestate)
        start_ns, end_ns = self._local_ns(job.enqueued_ms), self._local_ns(job.claimed_ms)
        span = self.spans.begin("wait", SpanKind.CONSUMER, parent, start_ns=start_ns, is_linked=True)
        describe(span, {gen_ai.JOB: job.job_id, gen_ai.LANE: job.lane, gen_ai.FLOOR: job.tier})
        span.end(max(start_ns, end_ns))

    def _end(self, job: Claimed, span: Span, outcome: Outcome) -> None:
        from bitladder.process.tracing.spans import describe

        tokens = outcome.usage
        attributes: dict[str, str | int | float | None] = {
            gen_ai.PROVIDER: gen_ai.BITLADDER,
            gen_ai.REQUEST_MODEL: self._worker.model,
            gen_ai.INPUT_TOKENS: tokens.prompt_tokens or None,
            gen_ai.OUTPUT_TOKENS: tokens.completion_tokens or None,
            gen_ai.JOB: job.job_id,
            gen_ai.WORKER: self._worker.name,
            gen_ai.TIER: self._worker.tier,
            gen_ai.OVERFLOWED_FROM: outcome.overflowed_from,
            gen_ai.ATTEMPTS: outcome.attempts,
            gen_ai.STATE: outcome.state,
            gen_ai.COST: outcome.cost,
            gen_ai.TTFT_MS: outcome.ttft_ms,
        }
        describe(span, attributes, None if outcome.state is State.FINISHED else outcome.code or str(outcome.state))
        span.end()

    def _local_ns(self, server_ms: int) -> int:
        """Return a time of the server's by this machine's clock, which the other spans go by."""
        clock = self._metrics.clock
        ahead_s = clock.seconds_until(server_ms) if clock else None
        return time.time_ns() + int((ahead_s or 0.0) * 1e9)
