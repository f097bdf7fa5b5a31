"""The envelope of a request, from its HTTP headers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from bitladder.contract import Envelope
from bitladder.errors import RequestError

# Header, field, least and greatest value. A day is the longest anybody may wait.
_NUMBERS = (
    ("X-Priority", "priority", 1, 10),
    ("X-Max-Latency-Ms", "max_latency_ms", 1, 86_400_000),
    ("X-Deadline-Ms", "deadline_ms", 1, 86_400_000),
)
_TIERS = (("X-Min-Tier", "min_tier"), ("X-Max-Tier", "max_tier"))

# What OpenAI's client sends of its own accord: so many seconds without a byte, and it gives up.
READ_TIMEOUT = "x-stainless-read-timeout"
# Of that, what passes on the way here and back.
ON_THE_WIRE_S = 0.5


class LatencyBudget(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client waits. None: as long as it takes."""

    whole_s: float | None = None  # for the end of the answer
    first_s: float | None = None  # for its beginning; a stream whose client only asks that it does not stall


def read_envelope(headers: Mapping[str, str]) -> Envelope:
    """Read the envelope; whether tiers exist is the policy's to say, because that depends on the model.

    Raises:
        RequestError: a header is not a whole number in its range.

    """
    found: dict[str, int | str] = {}
    for header, field, least, most in _NUMBERS:
        if (raw := headers.get(header.lower())) is not None:
            found[field] = _whole(header, raw, least, most)
    for header, field in _TIERS:
        if (raw := headers.get(header.lower())) is not None:
            found[field] = raw.strip()
    return Envelope(**found)  # type: ignore[arg-type]  # the tables above pair fields with their types


def read_latency_budget(
    headers: Mapping[str, str], deadline_ms: int | None, *, stream: bool, await_timeout_s: float | None
) -> LatencyBudget:
    """Return how long the client waits; `await_timeout_s` is how long we do for it, None where nobody waits."""
    deadline_s = None if deadline_ms is None else deadline_ms / 1000
    if await_timeout_s is None:
        return LatencyBudget(whole_s=deadline_s)
    silence_s = min(await_timeout_s, _read_timeout(headers.get(READ_TIMEOUT, "")))
    if stream:
        return LatencyBudget(whole_s=deadline_s, first_s=silence_s)
    return LatencyBudget(whole_s=silence_s if deadline_s is None else min(deadline_s, silence_s))


def _read_timeout(raw: str) -> float:
    try:
        read_s = float(raw)
    except ValueError:
        return math.inf  # the client's own business: whatever it sends, it did not send it to us
    return max(0.0, read_s - ON_THE_WIRE_S) if read_s > 0 else math.inf


def _whole(header: str, raw: str, least: int, most: int) -> int:
    text = raw.strip()
    # str.isdigit accepts digits that int() does not mean here, so ASCII is asked for; ten digits are enough.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise RequestError(f"{header} must be a whole number from {least} to {most}, got {raw[:40]!r}", param=header)
    return int(text)
