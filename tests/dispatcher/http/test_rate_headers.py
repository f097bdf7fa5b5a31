"""dispatcher/http/rate_headers.py: what is left of a key's rate."""

from __future__ import annotations

import pytest

from dispatcher.http.rate_headers import duration, rate_headers


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0ms"), (12, "12ms"), (1000, "1s"), (8640, "8.64s"), (60_000, "1m0s"), (360_000, "6m0s")]
)
def test_a_time_is_written_as_openai_does(ms: int, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("limit", "reset_ms", "remaining"), [(60, 1001, 59), (6, 10_001, 5), (6, 60_000, 0), (1, 60_000, 0), (600, 99, 599)]
)
def test_what_is_left_follows_from_when_the_bucket_is_full_again(limit: int, reset_ms: int, remaining: int) -> None:
    named = {name.decode(): value.decode() for name, value in rate_headers(limit, reset_ms)}

    assert named["x-ratelimit-limit-requests"] == str(limit)
    assert named["x-ratelimit-remaining-requests"] == str(remaining)
    assert named["ratelimit-policy"] == f'"requests";q={limit};w=60'
    assert named["ratelimit"].startswith(f'"requests";r={remaining};t=')
