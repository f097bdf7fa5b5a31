"""The examples of the commands' help texts call commands that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from bitladder.cli.commands import app


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  (of the click within typer)
    """Yield every command with its full name."""
    yield name, command
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, f"{name} {inner}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "Example:" in (command.help or "")])
def test_the_example_in_a_command_s_help_calls_this_command(name: str) -> None:
    example = (COMMANDS[name].help or "").partition("Example: ")[2]

    assert re.match(rf"(?:[A-Z_]+=\S+ )*bitladder {name}\b", example)
