"""Tables on stdout, for people and for programs: docs/operating/commands.md says what both get."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import typer

Row = Sequence[object]


def table(columns: Sequence[str], rows: Sequence[Row], *, title: str = "", red: Collection[int] = ()) -> str:
    """Return a table: for people in aligned columns, for programs a line per row with tabs between full values.

    Nothing is ever cut: an id or a path can be copied, whatever the width of the terminal. The title is a line of its
    own above. `red`: rows that a terminal shows so.
    """
    lines = [[plain(cell) for cell in row] for row in (columns, *rows)]
    above = [plain(title)] if title else []
    if not sys.stdout.isatty():
        return "\n".join([*above, *("\t".join(line) for line in lines)])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    shown = [typer.style(line, fg="red") if index in red else line for index, line in enumerate(padded[1:])]
    return "\n".join([*above, typer.style(padded[0], bold=True), *shown])


def plain(cell: object) -> str:
    """Return text in one line: what comes from outside may hold line ends, tabs and the orders of a terminal."""
    return "".join(char if char.isprintable() else " " for char in str(cell))
