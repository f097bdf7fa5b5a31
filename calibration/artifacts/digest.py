"""Every SHA-256 that calibration takes: of a text, of several texts, of a file, of a checkpoint folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

MANIFEST_NAME = "manifest.json"


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def texts_digest(texts: Iterable[str]) -> str:
    """Return the digest of these texts in this order."""
    return text_digest("\0".join(texts))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_digest(folder: Path) -> str:
    """Return the digest over names and contents of all files but the manifest, which says when, not what.

    Reads every byte: seconds for small checkpoints, minutes for large ones.
    """
    digest = hashlib.sha256()
    for path in _served_files(folder):
        # Names need not be UTF-8: bytes that are not stay what they are.
        line = f"{path.relative_to(folder)}\0{file_digest(path)}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _served_files(folder: Path) -> list[Path]:
    """Return all files of a checkpoint in the order of their names, without hidden ones and the manifest."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME]
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
