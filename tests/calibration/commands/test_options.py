"""An option that several steps have is called the same in all of them, and its help is shown whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.markup import render

from calibration.commands.app import STEPS, make_app
from calibration.commands.options import read_seconds
from calibration.errors import InputError


def commands(step: str) -> Iterator[tuple[str, Any]]:  # Any: typer has its own copy of click
    command: Any = typer.main.get_command(make_app([step]))
    command = command.commands[step]
    inner = getattr(command, "commands", None)
    yield from ((f"{step} {name}", item) for name, item in inner.items()) if inner else [(step, command)]


@pytest.mark.parametrize("step", STEPS)
def test_options_are_explained_and_called_as_in_other_steps(step: str) -> None:
    for name, command in commands(step):
        assert f"Example: bitladder calibrate {name}" in command.help or name in STEPS, name
        options = {option: item for item in command.params for option in item.opts}
        for option, item in options.items():
            assert item.help, f"{name} {option} is not explained"
            assert render(item.help).plain == item.help, f"{name} {option}: rich takes a part of it for markup"
        assert "--output" not in options, name
        assert ("-o" in options) == ("--out" in options) or step not in {"label", "simulate", "plan"}, name
        if "--url" in options and step != "drift":  # which needs no stack
            assert options["--url"].default == "http://127.0.0.1:8000", name


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("0.5s", 0.5), ("60s", 60), ("5m", 300), ("1h", 3600), ("24h", 86400)]
)
def test_a_time_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert read_seconds("--every", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1s", "1d", "25h", "1e3", "5 m", "٣s", "nan", "inf"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--every must be a time such as 60s, 5m or 1h"):
        read_seconds("--every", text)
