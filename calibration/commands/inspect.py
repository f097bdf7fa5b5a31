"""calibrate inspect: a checkpoint before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from calibration.commands.options import AsJson, progress_console
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Inspection, Verdict
from calibration.terminal.escape import printable
from calibration.terminal.progress import TimeLeft
from calibration.terminal.tabular import table


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
                typer.echo(_as_table(inspection))
        if any(inspection.verdict is Verdict.FAIL for inspection in inspections):
            raise typer.Exit(1)


def _inspect_shown(path: Path) -> Inspection:
    """Inspect with a progress bar, if stderr is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeLeft())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(printable(path.name))
        return inspect_checkpoint(path, lambda done, total: progress.update(task, completed=done, total=total))


def _as_table(inspection: Inspection) -> str:
    """Return a row for each thing seen; a check that saw several has several rows."""
    rows = [(str(check.name), str(check.verdict), text) for check in inspection.checks for text in check.texts or ("",)]
    effort = f"{inspection.seconds:.1f} s, at most {inspection.peak_bytes / 1e6:.0f} MB of memory"
    rows.append(("all", str(inspection.verdict), effort))
    return table(
        ("check", "verdict", "what was seen"),
        [tuple(map(printable, row)) for row in rows],
        title=printable(str(inspection.path)),
        red=[index for index, (_, verdict, _) in enumerate(rows) if verdict == Verdict.FAIL],
    )
