"""Options and output that the commands share."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Config = Annotated[
    str | None, typer.Option("--config", "-c", help="configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)")
]
MaxChars = Annotated[int, typer.Option("--max-chars", min=16, help="longer prompts are cut")]
MAX_CHARS = 16_384


def say(text: str) -> None:
    """Print a line on stderr, unwrapped and without markup."""
    progress_console().print(text, highlight=False, markup=False, soft_wrap=True)


def progress_console() -> Console:
    """Return the console on stderr: stdout is for results."""
    return Console(file=sys.stderr)  # this very stream: some libraries' output is kept off it for a while
