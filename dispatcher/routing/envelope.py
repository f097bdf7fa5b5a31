"""The envelope of a request, from its HTTP headers."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.contract import Envelope
from dispatcher.errors import RequestError

# Header, field, least and greatest value. A day is the longest anybody may wait.
_NUMBERS = (
    ("X-Priority", "priority", 1, 10),
    ("X-Max-Latency-Ms", "max_latency_ms", 1, 86_400_000),
    ("X-Deadline-Ms", "deadline_ms", 1, 86_400_000),
)
_TIERS = (("X-Min-Tier", "min_tier"), ("X-Max-Tier", "max_tier"))


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


def _whole(header: str, raw: str, least: int, most: int) -> int:
    text = raw.strip()
    # str.isdigit accepts digits that int() does not mean here, so ASCII is asked for; ten digits are enough.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise RequestError(f"{header} must be a whole number from {least} to {most}, got {raw[:40]!r}", param=header)
    return int(text)
