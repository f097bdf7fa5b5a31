"""What may be written on the command line: mixes, spans of time, bursts."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from bitladder.errors import ConfigError

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
NONE = "none"


class WeightedValues:
    """Values by their weights: `prose=2,code=1`, or `prose,code` for equal ones."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)

    def choose(self, dice: random.Random) -> str:
        return dice.choices(list(self.weights), list(self.weights.values()))[0]


def read_mix(option: str, text: str, known: Collection[str] | None = None) -> WeightedValues:
    """Read a mix.

    Raises:
        ConfigError: it is none, or names what is not known.

    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        try:
            weights[name] = float(weight) if equals else 1.0
        except ValueError:
            weights[name] = -1
        if not name or not 0 <= weights[name] < float("inf"):
            raise ConfigError(f"{option} must be as a=2,b=1, got {text[:80]!r}")
        if known is not None and name not in known:
            raise ConfigError(f"{option} must name some of {', '.join(known)}, got {name[:80]!r}")
    if not sum(weights.values()):
        raise ConfigError(f"{option} must have a weight above 0, got {text[:80]!r}")
    return WeightedValues(weights)


def read_span(option: str, text: str) -> float:
    """Return the seconds that 500ms, 20s, 5m, 1h or a bare number mean.

    Raises:
        ConfigError: it is no span.

    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{option} must be a span like 500ms, 20s, 5m or 1h, got {text[:80]!r}")
    return float(match[1]) * _SECONDS[match[2] or "s"]


class Burst(NamedTuple):
    """Traffic comes for some seconds, then none for some."""

    on_s: float
    off_s: float

    def moment(self, busy_s: float) -> float:
        """Return when it is that traffic has come for so many seconds in all."""
        return busy_s // self.on_s * (self.on_s + self.off_s) + busy_s % self.on_s


def read_burst(text: str) -> Burst:
    """Read `10s/20s`: on and off.

    Raises:
        ConfigError: it is none.

    """
    on, slash, off = text.partition("/")
    if not slash:
        raise ConfigError(f"--burst must be as 10s/20s (on and off), got {text[:80]!r}")
    burst = Burst(read_span("--burst", on), read_span("--burst", off))
    if burst.on_s <= 0:
        raise ConfigError(f"--burst must be on for some time, got {text[:80]!r}")
    return burst
