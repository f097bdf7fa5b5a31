"""Plots show texts from outside as they are."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from calibration.artifacts.png import plain, png_of


@pytest.mark.parametrize("text", ["$x^$", "$a_$b", "a\x1bb", "half \ud800 a character"])
def test_a_text_that_matplotlib_would_read_otherwise_is_drawn(text: str) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1], [1], label=plain(text))
    axes.set_title(plain(text))
    axes.legend()

    assert png_of(figure).startswith(b"\x89PNG")
