"""bitladder batch: its commands."""

from __future__ import annotations

import typer

from bitladder.cli.batch.remote_commands import cancel, list_batches, result, status, submit
from bitladder.cli.batch.run_command import run

_HELP = (
    "Run a file of requests into a file of answers: `run` here, straight through Redis; the others at an intake, which "
    "goes on alone."
)
app = typer.Typer(help=_HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
for command in (run, submit, status, result, cancel):
    app.command()(command)
app.command("list")(list_batches)
