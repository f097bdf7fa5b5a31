"""Figures of matplotlib as PNG: the same figure gives the same bytes. Knows no plot, and does not load matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from calibration.terminal.escape import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people who see fewer colours tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")


def plain(text: str) -> str:
    """Escape a text from outside: matplotlib would read $ as a formula, and has no glyph for control characters."""
    return printable(text).replace("$", r"\$")


def png_of(figure: Figure, dpi: int = 110) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()
