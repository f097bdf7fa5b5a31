"""One digest for all that an engine reads of a checkpoint folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from calibration.artifacts import manifest


def checkpoint_digest(folder: Path) -> str:
    """Return the sha256 over names and contents of all files but the manifest, which says when, not what.

    Reads every byte: seconds for small checkpoints, minutes for large ones.
    """
    digest = hashlib.sha256()
    for path in served_files(folder):
        # Names need not be UTF-8: bytes that are not stay what they are.
        line = f"{path.relative_to(folder)}\0{manifest.file_digest(path)}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def served_files(folder: Path) -> list[Path]:
    """Return all files of a checkpoint in the order of their names, hidden ones and the manifest left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != manifest.NAME]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
