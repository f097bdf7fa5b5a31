"""workers/handling/job_traces.py: which spans a worker sends, and in which trace its engine is asked."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import structlog
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from bitladder.contract import Claimed, Outcome, Request, State
from bitladder.process.process_metrics import SPANS
from bitladder.process.tracing.span_sender import SpanSender
from bitladder.process.tracing.spans import Spans
from tests.examples.operating.otlp_collector import Collector
from workers.engines.base import TRACE_HEADERS
from workers.handling.job_traces import JobTraces
from workers.identity import Identity
from workers.metrics.worker_metrics import WorkerMetrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CARRIED = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _no_headers() -> Iterator[None]:
    token = TRACE_HEADERS.set({})
    yield
    TRACE_HEADERS.reset(token)
    structlog.contextvars.clear_contextvars()


def request(traceparent: str) -> Request:
    return Request(body=msgspec.Raw(b"{}"), request_id="req_1", traceparent=traceparent, tracestate="vendor=1")


def claimed(attempt: int) -> Claimed:
    return Claimed(
        job_id="j",
        queue="m:int4:normal",
        data=b"",
        attempt=attempt,
        fence=attempt,
        enqueued_ms=1,
        deadline_ms=None,
        claimed_ms=2,
        has_returned=attempt > 1,
    )


def traces() -> JobTraces:
    return JobTraces(Identity.new("m", "int4"), WorkerMetrics("m", "int4"), None)


def outcome(state: State, attempts: int) -> Outcome:
    code = None if state is State.FINISHED else "engine_fault"
    return Outcome(state=state, status=200, attempts=attempts, code=code)


@pytest.mark.parametrize("carried", ["", "x", f"{CARRIED}\r\nX-Evil: 1", CARRIED.upper()])
def test_what_is_no_traceparent_reaches_no_engine(carried: str) -> None:
    traces().begin(claimed(1), request(carried))

    assert dict(TRACE_HEADERS.get()) == {}


def test_a_worker_that_makes_no_spans_hands_on_the_trace_and_logs_it() -> None:
    traces().begin(claimed(1), request(CARRIED))

    assert TRACE_HEADERS.get() == {"traceparent": CARRIED, "tracestate": "vendor=1"}
    assert structlog.contextvars.get_contextvars() == {"request_id": "req_1", "trace_id": TRACE}


def test_of_many_executions_the_first_and_the_last_have_spans_and_the_engine_is_asked_in_them() -> None:
    collector = Collector()
    spans, traced = Spans("s", "", collector.url, 1.0, 1.0), traces()
    traced.spans = spans
    asked = []
    for attempt in range(1, 6):
        traced.begin(claimed(attempt), request(CARRIED))
        asked.append(TRACE_HEADERS.get()["traceparent"].split("-")[2])
        if attempt < 5:
            traced.requeued(claimed(attempt), outcome(State.FAILED, attempt))
    exemplar = traced.ended(claimed(5), outcome(State.FINISHED, 5))
    spans.close()
    collector.stop()

    executed = [span for span in collector.spans if span.name == "execute"]
    assert [span.span for span in executed] == [asked[0], asked[4]]
    assert [span.is_error for span in executed] == [True, False]
    assert len(collector.spans) == 3
    assert exemplar == {"trace_id": TRACE}


def test_spans_beyond_what_may_wait_are_dropped_and_counted() -> None:
    class Stuck:
        def export(self, spans: object) -> None:
            raise OSError("no collector")

        def shutdown(self) -> None:
            pass

    before = {result: SPANS.labels(result)._value.get() for result in ("dropped", "failed")}
    sender = SpanSender(Stuck(), max_waiting=2)  # type: ignore[arg-type]
    spans = Spans("s", "", "http://127.0.0.1:9", 1.0, 1.0)
    for _ in range(5):
        sender.on_end(spans.begin("x", SpanKind.INTERNAL, Context()))  # type: ignore[arg-type]
    sender.shutdown()

    counts = {result: SPANS.labels(result)._value.get() - before[result] for result in before}
    assert counts == {"dropped": 3, "failed": 2}
