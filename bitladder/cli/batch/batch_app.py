"""bitladder batch: its commands."""

from __future__ import annotations

import typer

from bitladder.cli.batch.run_command import run

app = typer.Typer(
    help="Run a file of requests into a file of answers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.callback()(lambda: None)  # without it typer would take a group of one command for that command
app.command()(run)
