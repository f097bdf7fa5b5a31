"""Options and output that the commands share."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Config = Annotated[
    str | None, typer.Option("--config", "-c", help="configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)")
]


def plain(text: str) -> Text:
    """Return what others wrote as it is to be shown: none of it is markup, and none of it steers the terminal."""
    return Text("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text))


def progress_console() -> Console:
    """Return the console on stderr: stdout is for results."""
    return Console(file=sys.stderr)  # this very stream: some libraries' output is kept off it for a while
