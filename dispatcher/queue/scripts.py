"""The Lua scripts, loaded from their files. A script begins with its keys, their types and what it returns."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

NAMES = (
    "submit",
    "claim",
    "extend",
    "emit",
    "finish",
    "give_back",
    "reap",
    "cancel",
    "expire",
    "depths",
    "look",
    "retire",
    "release",
    "drop",
    "rate",
)

# A full Redis refuses what may grow. These must go on: they end jobs and free their prompts, keep leases alive, count
# the requests of a key, some of which read outcomes, or wait for them.
ALLOW_OOM = ("claim", "extend", "finish", "give_back", "reap", "cancel", "expire", "retire", "drop", "rate", "look")


@cache
def source(name: str) -> str:
    """Return the text of a script with the prelude before it."""
    folder = files("dispatcher.queue") / "scripts"
    flags = "#!lua flags=allow-oom\n" if name in ALLOW_OOM else ""
    return flags + "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name))


@cache
def digest(name: str) -> str:
    """Return the name EVALSHA knows the script by."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
