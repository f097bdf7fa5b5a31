"""The packaged texts: what AWQ looks at, and the held-out text that every checkpoint is measured on."""

from __future__ import annotations

import hashlib
from pathlib import Path

TEXTS = Path(__file__).parent / "texts"
SEPARATOR = "\n%%\n"


def calibration_samples() -> list[str]:
    return _read("calibration.txt")


def heldout_samples() -> list[str]:
    return _read("heldout.txt")


def digest() -> str:
    """Return the hash of all texts."""
    return hashlib.sha256("\0".join([*calibration_samples(), "", *heldout_samples()]).encode()).hexdigest()


def _read(name: str) -> list[str]:
    return (TEXTS / name).read_text(encoding="utf-8").removesuffix("\n").split(SEPARATOR)
