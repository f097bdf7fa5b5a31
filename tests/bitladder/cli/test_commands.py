"""The commands that help texts and documentation name are the commands that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bitladder.cli.commands import app
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(?:\.venv/bin/)?bitladder ([a-z-]+)", page.read_text(encoding="utf-8"))

    assert [name for name in named if name not in COMMANDS] == []
