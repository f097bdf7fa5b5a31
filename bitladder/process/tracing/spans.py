"""Makes spans, and carries their context as W3C's traceparent. It needs the extra: import it where tracing is on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bitladder.process.tracing.span_sender import SpanSender

_SEND_LIMIT_S = 5.0
# W3C lets a tracestate have so many characters.
MAX_STATE = 512
_PROPAGATOR = TraceContextTextMapPropagator()
_Attributes = Mapping[str, str | int | float | None]


class Spans:
    """The spans of one process. A trace that a client began is sampled as the client says, others by a ratio."""

    def __init__(self, service: str, instance: str, endpoint: str, ratio: float, batch_ratio: float) -> None:
        where = {"service.name": service, "service.version": version("bitladder")}
        resource = Resource.create({**where, "service.instance.id": instance} if instance else where)
        # Without an endpoint the exporter goes by OTEL_EXPORTER_OTLP_*, as other programs do.
        url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
        self._sender = SpanSender(OTLPSpanExporter(endpoint=url, timeout=_SEND_LIMIT_S))
        self._tracers = []
        for share in (ratio, batch_ratio):
            provider = TracerProvider(sampler=ParentBasedTraceIdRatio(share), resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(self._sender)
            self._tracers.append(provider.get_tracer("bitladder", version("bitladder")))

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: Context,
        *,
        start_ns: int | None = None,
        is_batch: bool = False,
        is_linked: bool = False,
    ) -> Span:
        """Begin a span. One that is never ended is not sent."""
        links = [Link(get_current_span(parent).get_span_context())] if is_linked else None
        return self._tracers[is_batch].start_span(name, parent, kind, links=links, start_time=start_ns)

    def close(self) -> None:
        """Send what waits, within a moment."""
        self._sender.shutdown()


def describe(span: Span, attributes: _Attributes, error: str | None = None) -> None:
    """Give a span its attributes; None: there is none. `error`: the code of what went wrong."""
    if not span.is_recording():
        return
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
    if error:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR, error))


def context_from(traceparent: str, tracestate: str = "") -> Context:
    """Return the context that headers carry; an empty one where they carry none."""
    headers = {"traceparent": traceparent} | ({"tracestate": tracestate[:MAX_STATE]} if tracestate else {})
    return _PROPAGATOR.extract(headers, Context())


def headers_of(span: Span) -> dict[str, str]:
    """Return the headers that carry a span's context."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
    return headers


def trace_id_of(span: Span) -> str:
    """Return the id of a span's trace, as hex digits."""
    return f"{span.get_span_context().trace_id:032x}"
