"""Options and output that the commands share."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from calibration.errors import InputError

AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Config = Annotated[
    str | None, typer.Option("--config", "-c", help="configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)")
]
MaxChars = Annotated[int, typer.Option("--max-chars", min=16, help="longer prompts are cut")]
MAX_CHARS = 16_384
URL_OPTION = typer.Option(envvar="BITLADDER_URL", help="an intake of the running stack")
Url = Annotated[str, URL_OPTION]
DEFAULT_URL = "http://127.0.0.1:8000"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_DAY_S = 86_400


def key_option(scopes: str) -> Any:  # noqa: ANN401  (what typer gives for an option)
    """Return the option of an intake's API key."""
    return typer.Option(envvar="BITLADDER_API_KEY", help=f"with {scopes}; as a variable, ps does not show it")


ControlKey = Annotated[str | None, key_option("the scopes submit, read, ops:read and ops:write")]


def say(text: str) -> None:
    """Print a line on stderr, unwrapped and without markup."""
    progress_console().print(text, highlight=False, markup=False, soft_wrap=True)


def read_seconds(option: str, text: str) -> float:
    """Return the seconds of an option such as 30, 60s, 5m or 1h."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh]?)", text, re.ASCII)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _DAY_S:
        raise InputError(f"{option} must be a time such as 60s, 5m or 1h, of a day at most, got {text!r}")
    return seconds


def progress_console() -> Console:
    """Return the console on stderr: stdout is for results."""
    return Console(file=sys.stderr)  # this very stream: some libraries' output is kept off it for a while
