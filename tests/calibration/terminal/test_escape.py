"""calibration/terminal/escape.py: what strangers wrote is told in one line that steers nothing."""

from __future__ import annotations

import pytest

from calibration.terminal.escape import printable


@pytest.mark.parametrize("text", ["plain", "Größe 大 🙂", "[/x] [bold]markup", "back\\slash"])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("bad \udcff", r"bad \udcff"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, told: str) -> None:
    assert printable(text) == told
