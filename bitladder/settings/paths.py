"""Where files lie by default, for the programs that make checkpoints and those that serve them; and their changes.

The quantizer's environment has the standard library and no pydantic: this file imports nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Stands for the checkpoint cache in the path of a checkpoint.
CACHE = "{cache}"
# What tells one state of a file from another; None: there is none.
Stamp = tuple[int, int, int] | None


def checkpoint_cache(environ: Mapping[str, str]) -> Path:
    """Return the checkpoint cache: bitladder/checkpoints in $XDG_CACHE_HOME, else in ~/.cache.

    An empty or relative XDG_CACHE_HOME counts as unset, as its standard says.
    """
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "bitladder" / "checkpoints"


def in_cache(checkpoint: str, cache: str | Path) -> Path:
    """Return the folder that a checkpoint's path means."""
    return Path(checkpoint.replace(CACHE, str(cache))).expanduser()


def stamp_of(file: Path) -> Stamp:
    """Return what tells this state of a file from another."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
