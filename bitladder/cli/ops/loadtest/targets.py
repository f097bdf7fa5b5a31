"""Targets: what a run must reach, as `p95=20s,ttft_p95=2s,errors=0.1%,throughput=50`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bitladder.cli.ops.loadtest.mixes import read_span
from bitladder.errors import ConfigError

_MEASURES = ("e2e", "ttft", "itl", "queue")
_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
_SHARES = ("errors", "refused", "overflow")  # at most
_RATES = ("throughput", "tokens", "goodput")  # at least, a second
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d{1,2})?)(%)?")
_TIMED = re.compile(rf"(?:({'|'.join(_MEASURES)})_)?({'|'.join(_STATISTICS)})")
EXPECTED = (
    "p95=20s,ttft_p95=2s,itl_p99=100ms,queue_p95=1s,errors=0.1%,overflow=30%,throughput=50,tokens=2000,cost=0.001"
)


@dataclass(frozen=True, slots=True)
class Target:
    """One of them."""

    name: str
    limit: float
    path: tuple[str, ...]  # where its value is in the report
    is_minimum: bool

    def judge(self, report: dict[str, Any]) -> dict[str, Any]:
        """Return it with what was reached; what was not measured is missed."""
        value: Any = report
        for part in self.path:
            value = value.get(part) if isinstance(value, dict) else None
        met = value is not None and (value >= self.limit if self.is_minimum else value <= self.limit)
        words = "at least" if self.is_minimum else "at most"
        return {"name": self.name, "wanted": f"{words} {self.limit:g}", "reached": value, "met": met}


def read_targets(text: str) -> list[Target]:
    """Read the targets of a command line.

    Raises:
        ConfigError: one is unknown, or its value is none.

    """
    return [_read(part.strip()) for part in text.split(",") if part.strip()]


def read_slo(text: str) -> dict[str, float]:
    """Read what a request must keep to count as good, as `ttft=1s,e2e=10s`: seconds by measure.

    Raises:
        ConfigError: a measure is unknown, or its value no span.

    """
    slo: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in ("e2e", "ttft", "itl"):
            raise ConfigError(f"--slo must be as ttft=1s,e2e=10s,itl=50ms, got {text[:80]!r}")
        slo[name] = read_span(f"--slo {name}", value)
    return slo


def _read(part: str) -> Target:
    name, equals, value = part.partition("=")
    if equals and (match := _TIMED.fullmatch(name)):
        return Target(name, read_span(f"--target {name}", value), ("latency", match[1] or "e2e", match[2]), False)
    if number := _NUMBER.fullmatch(value):
        amount = float(number[1]) / (100 if number[2] else 1)
        if name in _SHARES and amount <= 1:
            return Target(name, amount, ("shares", name), False)
        if name in _RATES and not number[2]:
            return Target(name, amount, ("throughput", name), True)
        if name == "cost" and not number[2]:
            return Target(name, amount, ("cost", "per_request"), False)
    raise ConfigError(f"--target must be some of {EXPECTED}, got {part[:80]!r}")
