"""Output of C libraries on stdout."""

from __future__ import annotations

import ctypes

import pytest

from calibration.terminal.native_output import native_output_dropped


def test_what_c_prints_is_dropped_even_where_it_is_buffered_and_later_output_is_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    c_library = ctypes.CDLL(None)
    c_library.printf(b"before\n")

    with native_output_dropped():
        c_library.printf(b"noise\n")
    c_library.printf(b"after\n")
    c_library.fflush(None)

    assert capfd.readouterr().out == "before\nafter\n"
