"""The spans of the intake: `submit`, from a request's arrival to its job's place in the queue, and `deliver`.

Only where tracing is on: otherwise nothing here is imported or called on the way of a request.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitladder.contract import Outcome, State, Submission
from bitladder.errors import BitladderError
from bitladder.process.tracing import gen_ai
from bitladder.process.tracing.spans import Spans, context_from, describe, headers_of, trace_id_of
from bitladder.queue_name import Lane, QueueName
from bitladder.settings.log_section import TracingSettings

# Longer headers than W3C's are no context.
_MAX_PARENT, _MAX_STATE = 256, 512


class _Request:
    """One HTTP request: whose trace it belongs to, and what its client is sent of which job."""

    __slots__ = ("answered_ns", "heard_ns", "outcome", "parent", "start_ns", "state", "submitted")

    def __init__(self, scope: Scope) -> None:
        headers, self.state = dict(scope["headers"]), scope["state"]
        parent, state = headers.get(b"traceparent", b""), headers.get(b"tracestate", b"")
        is_context = len(parent) <= _MAX_PARENT
        self.parent = context_from(parent.decode("latin-1"), _bounded(state)) if is_context else Context()
        self.start_ns = time.time_ns()
        self.answered_ns = self.heard_ns = 0
        self.submitted: tuple[Submission, Span] | None = None
        self.outcome: Outcome | None = None


_REQUEST: ContextVar[_Request | None] = ContextVar("_REQUEST", default=None)


class RequestTraces:
    """The spans of one intake."""

    def __init__(self, settings: TracingSettings) -> None:
        service = f"{settings.service_name}-intake"
        self._spans = Spans(service, "", settings.endpoint, settings.ratio, settings.batch_ratio)

    @contextlib.contextmanager
    def submitting(self, job: Submission) -> Iterator[Submission]:
        """Hand out a job as it is to be queued, and send the span of that; of a line of a batch once it is queued."""
        request, is_batch = _REQUEST.get(), QueueName.parse(job.queue).lane == Lane.BATCH
        parent, start_ns = (request.parent, request.start_ns) if request else (Context(), None)
        span = self._spans.begin("submit", SpanKind.PRODUCER, parent, start_ns=start_ns, is_batch=is_batch)
        describe(span, _submitted(job))
        headers = headers_of(span)
        traced = msgspec.structs.replace(
            job.request, traceparent=headers.get("traceparent", ""), tracestate=headers.get("tracestate", "")
        )
        if request:
            request.submitted = job, span
            request.state["trace_id"] = trace_id_of(span)  # for the lines of the log
        try:
            yield msgspec.structs.replace(job, request=traced)
        except BitladderError as error:
            if request:  # a line of a batch is tried again, and has one span for all that
                describe(span, {}, error.code)
                span.end()
            raise
        span.end()

    def heard(self, outcome: Outcome) -> dict[str, str] | None:
        """Note the outcome that the present client is sent; return the exemplar of its trace, if it is sampled."""
        request = _REQUEST.get()
        if request is None or request.submitted is None:
            return None
        request.outcome, request.heard_ns = outcome, time.time_ns()
        span = request.submitted[1]
        return {"trace_id": trace_id_of(span)} if span.get_span_context().trace_flags.sampled else None

    def delivered(self, request: _Request, error: str | None) -> None:
        """Send the span of an answer: from the outcome, or of a stream from its first byte, to the last byte."""
        if request.submitted is None or request.outcome is None:
            return
        job, submitted = request.submitted
        start_ns = min(request.heard_ns, request.answered_ns or request.heard_ns)
        parent = set_span_in_context(submitted, Context())
        span = self._spans.begin("deliver", SpanKind.INTERNAL, parent, start_ns=start_ns)
        outcome = request.outcome
        describe(span, {gen_ai.JOB: job.job_id, gen_ai.STATE: outcome.state, gen_ai.TIER: outcome.tier}, error)
        span.end()

    def close(self) -> None:
        self._spans.close()


class TracedRequests:
    """Has each request carry its client's context, and ends the span of its answer with the last byte."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, is_sent = _Request(scope), False

        async def send_traced(message: Message) -> None:
            nonlocal is_sent
            if message["type"] == "http.response.start":
                request.answered_ns = time.time_ns()
            await send(message)
            is_sent = message["type"] == "http.response.body" and not message.get("more_body")

        _REQUEST.set(request)
        try:
            await self.app(scope, receive, send_traced)
        finally:
            traces: RequestTraces = scope["app"].state.intake.traces
            traces.delivered(request, _error_of(request.outcome) if is_sent else "client_disconnected")


def _submitted(job: Submission) -> dict[str, str | int | float | None]:
    request, queue = job.request, QueueName.parse(job.queue)
    return {
        gen_ai.OPERATION: gen_ai.operation_of(request.endpoint),
        gen_ai.PROVIDER: gen_ai.BITLADDER,
        gen_ai.REQUEST_MODEL: job.model,
        gen_ai.JOB: job.job_id,
        gen_ai.REQUEST: request.request_id or None,
        gen_ai.TENANT: request.tenant,
        gen_ai.FLOOR: request.decision.floor,
        gen_ai.LANE: queue.lane,
        gen_ai.POLICY: request.decision.label,
        gen_ai.REASON: request.decision.reason,
        gen_ai.ENTROPY: request.decision.score.entropy,
    }


def _error_of(outcome: Outcome | None) -> str | None:
    return None if outcome is None or outcome.state is State.FINISHED else outcome.code or str(outcome.state)


def _bounded(state: bytes) -> str:
    return state.decode("latin-1") if len(state) <= _MAX_STATE else ""
