"""The file that says what a loop does: a table of options for each step, as its command takes them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from calibration.errors import InputError

_MAX_BYTES = 256 * 1024
Scalar = bool | int | float | str
Options = dict[str, Scalar | list[Scalar]]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
_File = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class LoopFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands in loop.toml."""

    # Tables [policies.NAME] of the stack, each with its file: the loop writes the first one that is not in force.
    policies: Annotated[dict[_Name, _File], msgspec.Meta(min_length=1, max_length=8)]
    prompts: str = ""  # JSONL to label, instead of a sample
    url: str = "http://127.0.0.1:8000"  # the intake
    config: str = ""  # bitladder.toml; empty: as the commands find it
    proposals: str = "var/proposals"
    sample: Options = {}
    label: Options = {}
    tune: Options = {}
    ablate: Options = {}
    canary: Options = {}


def read_loop(file: Path) -> LoopFile:
    """Read a loop's file.

    Raises:
        InputError: it cannot be read, or holds what is not known.

    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(f"{file} must be at most {_MAX_BYTES:,} bytes")
        return msgspec.convert(tomllib.loads(content.decode()), LoopFile)
    except OSError as error:
        raise InputError(f"cannot read {str(file)!r}: {error.strerror or error}") from error
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{file}: {error}") from error


def as_arguments(options: Mapping[str, Scalar | list[Scalar]]) -> list[str]:
    """Return options as a command line has them: `{"count": 500, "json": true}` is `--count 500 --json`."""
    arguments: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
            continue
        for item in value if isinstance(value, list) else [value]:
            arguments += [f"--{name}", f"{item}"]
    return arguments
