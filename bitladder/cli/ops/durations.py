"""Durations as people write them: 45m, 12h, 90d."""

from __future__ import annotations

import re

from bitladder.errors import ConfigError

_SPAN = re.compile(r"(\d{1,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def span_s(text: str) -> int | None:
    """Return the seconds of a span; None for any other text."""
    span = _SPAN.fullmatch(text)
    return int(span[1]) * _SECONDS[span[2]] if span else None


def for_s(text: str) -> int:
    """Return the seconds of --for.

    Raises:
        ConfigError: it is no span.

    """
    seconds = span_s(text)
    if not seconds:
        raise ConfigError(f"--for takes a span like 45s, 10m, 12h or 7d, got {text!r}")
    return seconds
