"""Results on disk: a file for each measure of a checkpoint, named by all that the result depends on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.artifacts.digest import text_digest
from calibration.artifacts.folder import replace_file, writing

# Part of every name: raise it when a measure changes so that results taken before must be taken anew.
_VERSION = 2


class Store:
    """A folder of results; several evaluations may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str, inputs: dict[str, Any]) -> bytes | None:
        path = self._path(name, inputs)
        return path.read_bytes() if path.exists() else None

    def save(self, name: str, inputs: dict[str, Any], content: bytes, about: Mapping[str, Any] | None = None) -> None:
        """Keep a result, and beside it, for people, what it is of: the name tells digests alone."""
        path = self._path(name, inputs)
        write_whole(path, content)
        described = json.dumps({"measure": name, **(about or {})}, indent=2, ensure_ascii=False)
        write_whole(path.with_suffix(".json"), (described + "\n").encode())

    def _path(self, name: str, inputs: dict[str, Any]) -> Path:
        text = json.dumps({"version": _VERSION, "measure": name, **inputs}, sort_keys=True)
        return self._folder / f"{name}-{text_digest(text)[:24]}.result"


def write_whole(path: Path, content: bytes) -> None:
    """Write a temporary file, then rename it: the path is never half-written, and its owner alone can read it.

    Results and reports have the user's own texts and what models answered to them.

    Raises:
        DiskFullError: there is no room.
        InputError: the folder cannot be written.

    """
    with writing(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, content, aside=f"{os.getpid()}.partial", mode=0o600)
