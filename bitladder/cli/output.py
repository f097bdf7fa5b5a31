"""How commands speak to people and to programs: exit statuses and tables. docs/operating/commands.md has both."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from enum import IntEnum

import typer

from bitladder.errors import BitladderError, ConfigError, ProtocolError

Row = Sequence[object]


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    DONE = 0
    FAILED = 1  # what was asked for was not done, or only in part; the job failed
    WRONG_USE = 2  # arguments, configuration, a request that no intake takes, versions that do not fit
    NOT_FOUND = 3  # no such job, model, dead letter or key
    DENIED = 4  # no API key, a wrong one, or one without the scope
    NOT_NOW = 5  # the same command may succeed later: no answer, too much load, or the job has not ended
    INTERRUPTED = 130  # Ctrl-C


# By HTTP status; 0: there was no answer.
_BY_STATUS = {
    **dict.fromkeys((400, 405, 413, 415, 422), ExitCode.WRONG_USE),
    **dict.fromkeys((404, 410), ExitCode.NOT_FOUND),
    **dict.fromkeys((401, 403), ExitCode.DENIED),
    **dict.fromkeys((0, 408, 429, 502, 503, 504), ExitCode.NOT_NOW),
}


def exit_code(error: BitladderError) -> ExitCode:
    """Return the exit status of an error."""
    if isinstance(error, (ConfigError, ProtocolError)):  # no later try can help
        return ExitCode.WRONG_USE
    return _BY_STATUS.get(error.status or 0, ExitCode.FAILED)


def table(columns: Sequence[str], rows: Sequence[Row], *, red: Collection[int] = ()) -> str:
    """Return a table: for people in aligned columns, for programs a line per row with tabs between full values.

    Nothing is ever cut: an id can be copied, whatever the width of the terminal. `red`: rows that a terminal shows so.
    """
    lines = [[plain(cell) for cell in row] for row in (columns, *rows)]
    if not sys.stdout.isatty():
        return "\n".join("\t".join(line) for line in lines)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    shown = [typer.style(line, fg="red") if index in red else line for index, line in enumerate(padded[1:])]
    return "\n".join([typer.style(padded[0], bold=True), *shown])


def plain(cell: object) -> str:
    """Return text in one line: what comes from outside may hold line ends, tabs and the orders of a terminal."""
    return "".join(char if char.isprintable() else " " for char in str(cell))
