"""The Lua scripts, loaded from their files.

A script's head says which parts it needs, its keys, their types, and what it returns. A script makes its functions anew
at every call, so it gets the parts that it needs (scripts/parts/) and no more.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

# What a command is written with.
Argument = str | bytes | int | float

NAMES = (
    "submit",
    "claim",
    "extend",
    "emit",
    "finish",
    "requeue",
    "reap",
    "cancel",
    "expire",
    "depths",
    "look",
    "chunks",
    "heads",
    "records",
    "overview",
    "retire",
    "sweep",
    "release",
    "drop",
    "rate",
)

# A full Redis refuses what may grow. These must go on: they end jobs and free their prompts, give them an end, keep
# leases alive, count the requests of a key, some of which read outcomes, or wait for them.
ALLOW_OOM = (
    "claim",
    "extend",
    "finish",
    "requeue",
    "reap",
    "cancel",
    "expire",
    "sweep",
    "retire",
    "drop",
    "rate",
    "look",
)

_READING = ("chunks", "depths", "heads", "overview", "records")
_NEEDS = re.compile(r"^-- Needs: (.+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Return the text of a script, with the parts that it needs before it."""
    text = _read(f"reading/{name}" if name in _READING else name)
    flags = "#!lua flags=allow-oom\n" if name in ALLOW_OOM else ""
    parts: dict[str, str] = {}
    _add_parts(text, parts)
    return flags + "\n".join((*parts.values(), text))


def part(name: str) -> str:
    """Return the text of one part."""
    return _read(f"parts/{name}")


def needs(text: str) -> list[str]:
    """Return the parts that a script or a part needs itself, as its head lists them."""
    line = _NEEDS.search(text)
    if line is None:
        raise ValueError("a Lua script must have a line '-- Needs: ' with parts, or 'nothing', in its head")
    return [] if line[1] == "nothing" else line[1].split(", ")


def _add_parts(text: str, parts: dict[str, str]) -> None:
    """Add the parts that a text needs, each once and behind those that it needs itself."""
    for name in needs(text):
        if name not in parts:
            _add_parts(part(name), parts)
            parts[name] = part(name)


def _read(name: str) -> str:
    return (files("bitladder.queue") / "scripts" / f"{name}.lua").read_text(encoding="utf-8")


@cache
def digest(name: str) -> str:
    """Return the name EVALSHA knows the script by."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
