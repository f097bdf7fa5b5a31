"""Settings of what a process says of itself: its log, its metrics and its traces."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from bitladder.settings.base import Section

_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a folder above it is not
        return False


def _in_lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class LogSettings(Section):
    """The log of every process: JSON on stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_in_lower_case)] = Field(
        "info",
        description="what is less than this is not logged; debug shows what vLLM prints, which may be of prompts",
    )
    requests: bool = Field(False, description="a line for each request that an intake has answered")


class MetricsSettings(Section):
    """What /metrics of every process shows."""

    article_names: bool = Field(
        False, description="copies of some metrics by the names of the article (quant_router_*)"
    )


class TracingSettings(Section):
    """Traces of OpenTelemetry, sent as OTLP over HTTP (docs/operating/tracing.md)."""

    enabled: bool = Field(False, description="make and send spans; needs `pip install 'bitladder[otel]'`")
    endpoint: str = Field(
        "",
        description="URL of the collector, without /v1/traces; empty: OTEL_EXPORTER_OTLP_ENDPOINT, or "
        "http://localhost:4318",
    )
    ratio: float = Field(1.0, ge=0, le=1, description="share of requests that are traced where the client does not say")
    batch_ratio: float = Field(0.01, ge=0, le=1, description="the same of jobs in the batch lane")
    service_name: str = Field(
        "bitladder", min_length=1, max_length=100, description="services are called so, with -intake or -worker behind"
    )

    @field_validator("enabled")
    @classmethod
    def _is_installed(cls, value: bool) -> bool:
        if value and not all(map(_is_there, _NEEDED)):
            raise ValueError("OpenTelemetry is not installed: pip install 'bitladder[otel]'")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must be a URL with http:// or https://")
        return value
