"""Settings of what a process says of itself: its log and its metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from bitladder.settings.base import Section


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
