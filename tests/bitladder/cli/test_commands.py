"""The commands: their help, their exit statuses, and that each loads what it needs and no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

import bitladder
from bitladder import errors
from bitladder.cli.commands import app
from bitladder.cli.ops.operator_name import operator
from bitladder.cli.output import ExitCode, exit_code
from tests.conftest import ROOT
from tests.warm_start import BITLADDER

# What takes long to load, and what belongs to other programs.
SLOW = {"asyncio", "dispatcher", "httpx2", "numpy", "pydantic", "redis", "rich", "starlette", "structlog", "uvicorn"}
NOWHERE = "http://127.0.0.1:1"


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  (of the click within typer)
    """Yield every command with its full name."""
    yield name, command
    for inner in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from commands(command.get_command(None, inner), f"{name} {inner}".strip())


CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("BITLADDER_")}
COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "Example:" in (command.help or "")])
def test_the_example_in_a_command_s_help_calls_this_command(name: str) -> None:
    example = (COMMANDS[name].help or "").partition("Example: ")[2]

    assert re.match(rf"(?:[A-Z_]+=\S+ )*bitladder {name}\b", example)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=CLEAN | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (("--help",), SLOW),
        (("--version",), SLOW),
        (
            ("result", "x", "--url", NOWHERE),
            {"dispatcher", "numpy", "redis", "rich", "starlette", "structlog", "uvicorn"},
        ),
        (("queues", "--url", NOWHERE), {"dispatcher", "numpy", "redis", "rich", "starlette", "structlog", "uvicorn"}),
        (("queues",), {"dispatcher", "httpx2", "numpy", "starlette", "uvicorn"}),
        (("dead-letters", "list"), {"dispatcher", "httpx2", "numpy", "starlette", "uvicorn"}),
        # With its own process, which the command becomes.
        (("worker", "--tier", "none"), {"dispatcher", "httpx2", "starlette", "uvicorn"}),
        (("calibrate", "--help"), {"dispatcher", "httpx2", "numpy", "redis", "starlette", "uvicorn"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_loads_what_it_needs_and_no_more(arguments: tuple[str, ...], unwanted: set[str]) -> None:
    done = run(*arguments, PYTHONPROFILEIMPORTTIME="1", BITLADDER_REDIS__URL="redis://127.0.0.1:1/0")

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "bitladder.cli.commands" in loaded
    assert {name for name in loaded if name.partition(".")[0] in unwanted} == set()


def test_the_version_is_shown_by_an_option_too() -> None:
    assert run("--version").stdout == run("version").stdout == f"bitladder {bitladder.__version__}\n"


def test_the_page_about_commands_lists_every_exit_status() -> None:
    page = (ROOT / "docs" / "operating" / "commands.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \| ", page.partition("## Exit statuses")[2].partition("\n## ")[0], re.MULTILINE)

    assert [int(number) for number in listed] == [code.value for code in ExitCode]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.ConfigError("x"), 2),
        (errors.RequestError("x"), 2),
        (errors.ProtocolError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.GoneError("x"), 3),
        (errors.AuthenticationError("x"), 4),
        (errors.ForbiddenError("x"), 4),
        (errors.RateLimitError("x", retry_after_s=1), 5),
        (errors.QueueUnreachableError("x"), 5),
        (errors.BitladderError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_status(error: errors.BitladderError, expected: int) -> None:
    assert exit_code(error) == expected


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (("result", "x", "--url", NOWHERE), 5, "cannot reach the intake"),
        (("queues", "--url", NOWHERE), 5, "cannot reach the intake"),
        (("queues", "--url", "http://[::1"), 2, "the URL of an intake"),
        (("queues", "--config", "/nowhere.toml"), 2, "there is no configuration file"),
        (("dead-letters", "drop"), 2, "name the jobs by ids"),
        (("dead-letters", "list", "--limit", "-1"), 2, "--limit"),
        (("worker", "--tier", "none"), 2, "none"),
        (("nothing",), 2, "No such command"),
        (("calibrate", "nothing"), 2, "No such command"),
    ],
)
def test_a_command_that_cannot_ends_with_one_line_and_its_status(
    arguments: tuple[str, ...], expected: int, words: str
) -> None:
    done = BITLADDER.run(
        "bitladder.cli.main", *arguments, env=CLEAN | {"BITLADDER_REDIS__URL": "redis://127.0.0.1:1/0"}
    )

    assert done.returncode == expected
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause", "--tier", "int4", "--reason", "\udcff"),
        ("purge", "--tenant", "\udcff", "--dry-run", "--url", NOWHERE),
        ("settings", "set", "policy.name=\udcff"),
    ],
)
def test_an_argument_that_is_no_utf_8_is_refused_in_a_line(arguments: tuple[str, ...]) -> None:
    refused = run(*arguments, BITLADDER_REDIS__URL="redis://127.0.0.1:1/0")

    assert (refused.returncode, refused.stdout) == (ExitCode.WRONG_USE, "")
    assert refused.stderr.startswith("bitladder: arguments must be UTF-8, got '")
    assert r"\udcff" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_an_operator_without_a_name_can_give_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31)  # as in a container that runs as any user

    assert operator().startswith("unknown@")
