"""The Lua scripts, loaded from their files. A script begins with its keys, their types and what it returns."""

from __future__ import annotations

import hashlib
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

# What a script begins with: each makes its functions anew at every call, so it gets no more than it needs.
_ENDING = ("prelude", "rq")
_MEETING = (*_ENDING, "meet")
PARTS = {
    "claim": _MEETING,
    "sweep": _MEETING,
    "extend": _ENDING,
    "finish": _ENDING,
    "requeue": _ENDING,
    "reap": _ENDING,
    "retire": _ENDING,
    "cancel": _ENDING,
    "expire": _ENDING,
}


@cache
def source(name: str) -> str:
    """Return the text of a script with what all share before it."""
    folder = files("bitladder.queue") / "scripts"
    flags = "#!lua flags=allow-oom\n" if name in ALLOW_OOM else ""
    return flags + "\n".join(
        (folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*PARTS.get(name, ("prelude",)), name)
    )


@cache
def digest(name: str) -> str:
    """Return the name EVALSHA knows the script by."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
