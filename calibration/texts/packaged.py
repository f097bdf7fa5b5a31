"""The packaged texts: what recipes look at, and the held-out text that every checkpoint is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

TEXTS = Path(__file__).parent
SEPARATOR = "\n%%\n"


def calibration_samples() -> list[str]:
    return _read("calibration.txt")


def heldout_samples() -> list[str]:
    return _read("heldout.txt")


def digest(texts: Iterable[str]) -> str:
    """Return the hash of these texts in this order."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _read(name: str) -> list[str]:
    return (TEXTS / name).read_text(encoding="utf-8").removesuffix("\n").split(SEPARATOR)
