"""Tables on stdout, for people and for programs: docs/operating/commands.md says what both get."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Sequence

import typer

Row = Sequence[object]


def table(columns: Sequence[str], rows: Sequence[Row], *, title: str = "", red: Collection[int] = ()) -> str:
    """Return a table: for people in aligned columns, for programs a line per row with tabs between full values.

    Nothing is ever cut: an id or a path can be copied, whatever the width of the terminal. Where that is too small,
    columns with one value in all rows become a line above, the widest first, as far as that is needed. The title is a
    line of its own above. `red`: rows that a terminal shows so.
    """
    lines = [[plain(cell) for cell in row] for row in (columns, *rows)]
    above = [plain(title)] if title else []
    if not sys.stdout.isatty():
        return "\n".join([*above, *("\t".join(line) for line in lines)])
    same, gap, widths, lines = _fitted(lines, shutil.get_terminal_size().columns)
    above += [f"in every row: {', '.join(same)}"] if same else []
    padded = [gap.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    shown = [typer.style(line, fg="red") if index in red else line for index, line in enumerate(padded[1:])]
    return "\n".join([*above, typer.style(padded[0], bold=True), *shown])


def _fitted(lines: list[list[str]], room: int) -> tuple[list[str], str, list[int], list[list[str]]]:
    """Return what a narrow terminal has above its table, the gap between columns, their widths, and the lines left."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    left = list(range(len(columns)))
    repeated = [i for i in left[1:] if len(lines) > 2 and len(set(columns[i][1:])) == 1]
    for i in sorted(repeated, key=lambda i: -widths[i]):
        if sum(widths[j] + 2 for j in left) - 2 > room:
            left.remove(i)
    same = [f"{column[0]} {column[1] or '-'}" for i, column in enumerate(columns) if i not in left]
    wide, narrow = (sum(widths[i] + gap for i in left) - gap for gap in (2, 1))
    gap = " " if narrow <= room < wide else "  "  # where neither will do, lines break anyway
    return same, gap, [widths[i] for i in left], [[line[i] for i in left] for line in lines]


def plain(cell: object) -> str:
    """Return text in one line: what comes from outside may hold line ends, tabs and the orders of a terminal."""
    return "".join(char if char.isprintable() else " " for char in str(cell))
