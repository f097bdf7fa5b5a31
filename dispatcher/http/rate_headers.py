"""What is left of a key's rate, as OpenAI's clients read it, and as the IETF's draft of RateLimit has it."""

from __future__ import annotations

# Where a request's state has them, for the answer.
RATE = "rate_headers"
_MINUTE_MS = 60_000

Headers = list[tuple[bytes, bytes]]


def rate_headers(limit: int, reset_ms: int) -> Headers:
    """Return the headers of an answer; `reset_ms`: until the key may send `limit` requests at once again."""
    # A millisecond is what the script rounds up.
    remaining = max(0, (_MINUTE_MS - reset_ms + 1) * limit // _MINUTE_MS)
    values = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": duration(reset_ms),
        "ratelimit-policy": f'"requests";q={limit};w=60',
        "ratelimit": f'"requests";r={remaining};t={-(-reset_ms // 1000)}',
    }
    return [(name.encode(), value.encode()) for name, value in values.items()]


def duration(ms: int) -> str:
    """Return a time as OpenAI writes it: 12ms, 8.64s, 6m0s."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, _MINUTE_MS)
    return f"{minutes}m{rest_ms / 1000:g}s" if minutes else f"{rest_ms / 1000:g}s"
