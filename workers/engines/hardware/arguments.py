"""Arguments of a vLLM server."""

from __future__ import annotations

from collections.abc import Sequence


def value_of(args: Sequence[str], *names: str) -> str | None:
    """Return the value of an argument by any of its names, `--name value` or `--name=value`; the last one counts."""
    value = None
    for index, arg in enumerate(args):
        name, equals, rest = arg.partition("=")
        if name.replace("_", "-") in names:
            value = rest if equals else args[index + 1] if index + 1 < len(args) else value
    return value


def has_flag(args: Sequence[str], *names: str) -> bool:
    """Return whether an argument is there, with a value or without."""
    return any(arg.partition("=")[0].replace("_", "-") in names for arg in args)
