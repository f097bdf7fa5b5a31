"""dispatcher/http/preferences.py: Prefer, as RFC 7240 says it."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from dispatcher.http.preferences import Preferences, preferences_of

MAX_S = 60.0


def read(*headers: str) -> Preferences:
    scope = {"type": "http", "headers": [(b"prefer", header.encode()) for header in headers]}
    return preferences_of(Request(scope), MAX_S)


@pytest.mark.parametrize(
    ("headers", "is_async", "wait_s"),
    [
        ((), False, None),
        (("respond-async",), True, None),
        (("Respond-Async, Wait=10",), True, 10),
        (("respond-async", "wait=10"), True, 10),
        (('wait="2.5"; strict, foo=bar',), False, 2.5),
        (("wait=10, wait=20",), False, 10),
        (("wait=100000",), False, MAX_S),
        (("wait=soon",), False, None),
        (("wait=-1",), False, None),
        (("wait=nan, return=minimal",), False, None),
        (("wait=inf",), False, None),
        (("respond-asynchronously",), False, None),
        ((",;=,",), False, None),
    ],
)
def test_preferences_that_are_known_are_read_and_all_others_ignored(
    headers: tuple[str, ...], is_async: bool, wait_s: float | None
) -> None:
    read_now = read(*headers)

    assert (read_now.respond_async, read_now.wait_s) == (is_async, wait_s)
    assert read_now.waits == ("wait" in " ".join(headers).lower())


def test_the_answer_says_what_was_followed() -> None:
    both = read("respond-async, wait=10")

    assert both.applied(is_async=True) == {"Preference-Applied": "respond-async, wait=10"}
    assert both.applied(is_async=False) == {"Preference-Applied": "wait=10"}
    assert read("foo").applied(is_async=False) == {}
