"""OpenTelemetry, as far as bitladder uses it (docs/operating/tracing.md): the extra `otel`, imported where it is on."""
