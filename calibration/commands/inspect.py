"""calibrate inspect: a checkpoint before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from calibration.commands.options import AsJson, progress_console
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Inspection, Verdict

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
        found = [inspect_shown(path.expanduser().absolute()) for path in paths]
        if as_json:
            typer.echo(msgspec.json.encode({"checkpoints": found}, enc_hook=str))
        else:
            for inspection in found:
                Console().print(as_table(inspection))
        if any(inspection.verdict is Verdict.FAIL for inspection in found):
            raise typer.Exit(1)


def inspect_shown(path: Path) -> Inspection:
    """Inspect with a bar on stderr, where somebody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(path.name)
        return inspect_checkpoint(path, lambda done, of: progress.update(task, completed=done, total=of))


def as_table(inspection: Inspection) -> Table:
    table = Table("check", "verdict", "what was seen", title=str(inspection.path), title_justify="left")
    for check in inspection.checks:
        style = STYLES[check.verdict]
        table.add_row(check.name, f"[{style}]{check.verdict}[/]", "\n".join(check.said).replace("[", "\\["))
    table.caption = f"{inspection.seconds:.1f} s, at most {inspection.peak_bytes / 1e6:.0f} MB of memory"
    table.add_row("all", f"[bold {STYLES[inspection.verdict]}]{inspection.verdict}[/]", "")
    return table
