"""Whether a command line of `bitladder` in a page could be typed."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from bitladder.cli.commands import app


def unknown_parts(line: str) -> list[str]:
    """Return what no command of bitladder knows in a line: a command, or options."""
    words = [word for word in shlex.split(line.partition(" |")[0]) if word]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command"):
        inner = command.get_command(None, words[0]) if words else None
        if inner is None:
            return words[:1] or ["no command"]
        command, words = inner, words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    return [word for word in words if word.startswith("-") and word not in options]
