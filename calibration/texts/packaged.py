"""The packaged texts: those to calibrate on, and those that every checkpoint is measured on."""

from __future__ import annotations

from pathlib import Path

TEXTS = Path(__file__).parent
SEPARATOR = "\n%%\n"


def calibration_texts() -> list[str]:
    return _read("calibration.txt")


def heldout_texts() -> list[str]:
    return _read("heldout.txt")


def _read(name: str) -> list[str]:
    return (TEXTS / name).read_text(encoding="utf-8").removesuffix("\n").split(SEPARATOR)
