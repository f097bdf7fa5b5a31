"""Which requests come from other people's web pages."""

from __future__ import annotations

import pytest

from dispatcher.http.own_page import is_foreign_page


@pytest.mark.parametrize(
    ("origin", "host", "is_foreign"),
    [
        (None, "127.0.0.1:8000", False),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("http://localhost:8000", "localhost:8000", False),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("https://10.1.2.3", "10.1.2.3", False),
        ("http://localhost:3000", "localhost:8000", True),  # another server of this machine
        ("http://127.0.0.1:8000", "localhost:8000", True),
        ("http://rebound.example:8000", "rebound.example:8000", True),  # a name that was made to lead here
        ("http://localhost.evil.example", "localhost.evil.example", True),
        ("http://x@127.0.0.1:8000", "127.0.0.1:8000", True),
        ("null", "127.0.0.1:8000", True),
        ("", "", True),
        ("http://[", "127.0.0.1", True),
    ],
)
def test_only_the_page_at_the_very_address_that_is_asked_is_the_intake_s_own(
    origin: str | None, host: str, is_foreign: bool
) -> None:
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin is not None else [])]

    assert is_foreign_page(headers) == is_foreign
