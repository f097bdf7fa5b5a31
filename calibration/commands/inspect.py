"""calibrate inspect: a checkpoint before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from calibration.commands.options import AsJson, cell, progress_console
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Inspection, Verdict
from calibration.terminal.escape import printable
from calibration.terminal.progress import TimeLeft

STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAIL: "red"}


def register(app: typer.Typer) -> None:
    @app.command()
    def inspect(
        paths: Annotated[list[Path], typer.Argument(help="folders of checkpoints")],
        as_json: AsJson = False,
    ) -> None:
        """Look at checkpoints before they serve; exit status 1 when one must not.

        Example: bitladder calibrate inspect ~/.cache/bitladder/checkpoints/smollm2/int4
        """
        inspections = [_inspect_shown(path.expanduser().absolute()) for path in paths]
        if as_json:
            typer.echo(msgspec.json.encode({"checkpoints": inspections}, enc_hook=lambda path: printable(str(path))))
        else:
            for inspection in inspections:
                Console().print(_as_table(inspection))
        if any(inspection.verdict is Verdict.FAIL for inspection in inspections):
            raise typer.Exit(1)


def _inspect_shown(path: Path) -> Inspection:
    """Inspect with a progress bar, if stderr is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeLeft())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(printable(path.name))
        return inspect_checkpoint(path, lambda done, total: progress.update(task, completed=done, total=total))


def _as_table(inspection: Inspection) -> Table:
    table = Table("check", "verdict", "what was seen", title=cell(str(inspection.path)), title_justify="left")
    for check in inspection.checks:
        table.add_row(check.name, cell(check.verdict, style=STYLES[check.verdict]), cell(*check.texts))
    table.caption = f"{inspection.seconds:.1f} s, at most {inspection.peak_bytes / 1e6:.0f} MB of memory"
    table.add_row("all", cell(inspection.verdict, style=f"bold {STYLES[inspection.verdict]}"), "")
    return table
