"""Every SHA-256 that calibration takes but that of a checkpoint: of a text, of several texts, of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

MANIFEST_NAME = "manifest.json"  # bitladder/settings/checkpoint_digest.py leaves it out


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def text_id(text: str) -> str:
    """Return what a text is called from the sample to the report: short enough to read, and of the text alone."""
    return text_digest(text)[:16]


def texts_digest(texts: Iterable[str]) -> str:
    """Return the digest of these texts in this order."""
    return text_digest("\0".join(texts))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
