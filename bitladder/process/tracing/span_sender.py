"""Sends spans from a thread of its own: a collector that is slow or gone costs spans, which are counted, no time."""

from __future__ import annotations

import threading
from collections import deque

import structlog
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from bitladder.process.process_metrics import SPANS

log = structlog.get_logger()
# Spans that wait; what ends beyond them is dropped.
MAX_WAITING = 2048
_BUNDLE = 512
_EVERY_S = 1.0
# How long the end of a process waits for its last spans.
_CLOSE_S = 3.0


class SpanSender(SpanProcessor):
    """Takes spans as they end, and hands them to an exporter."""

    def __init__(self, exporter: SpanExporter, *, max_waiting: int = MAX_WAITING) -> None:
        self._exporter, self._max_waiting = exporter, max_waiting
        self._waiting: deque[ReadableSpan] = deque()
        self._is_needed, self._is_closing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: only whole spans are sent."""

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        if len(self._waiting) >= self._max_waiting:
            SPANS.labels("dropped").inc()
            return
        self._waiting.append(span)
        if len(self._waiting) >= _BUNDLE:
            self._is_needed.set()

    def shutdown(self) -> None:
        """Send what waits, within a moment."""
        self._is_closing = True
        self._is_needed.set()
        self._thread.join(_CLOSE_S)
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        del timeout_millis
        self._is_needed.set()
        return True

    def _run(self) -> None:
        while not self._is_closing:
            self._is_needed.wait(_EVERY_S)
            self._is_needed.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(_BUNDLE, len(self._waiting)))])

    def _send(self, spans: list[ReadableSpan]) -> None:
        try:
            is_sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # whatever a library does: a trace is never worth a request
            log.warning("spans not sent", error=repr(error))
            is_sent = False
        SPANS.labels("sent" if is_sent else "failed").inc(len(spans))
