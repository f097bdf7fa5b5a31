"""The packaged texts: those to calibrate on, and those that every checkpoint is measured on, by kind and language."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

TEXTS = Path(__file__).parent
_SEPARATOR = "\n%%\n"
KINDS = ("code", "prose", "chat", "german", "french", "spanish", "chinese", "json", "sql", "logs")


class PackagedText(NamedTuple):
    """One text; English where its kind is not a language."""

    kind: str
    text: str


def packaged_calibration() -> list[PackagedText]:
    return _read("calibration")


def packaged_heldout() -> list[PackagedText]:
    return _read("heldout")


def calibration_texts() -> list[str]:
    return [text.text for text in packaged_calibration()]


def heldout_texts() -> list[str]:
    return [text.text for text in packaged_heldout()]


def _read(split: str) -> list[PackagedText]:
    """Return the texts of all kinds in turn, so that every beginning of them has all kinds."""
    by_kind = [
        (TEXTS / split / f"{kind}.txt").read_text(encoding="utf-8").removesuffix("\n").split(_SEPARATOR)
        for kind in KINDS
    ]
    longest = max(map(len, by_kind))
    return [
        PackagedText(kind, texts[turn])
        for turn in range(longest)
        for kind, texts in zip(KINDS, by_kind, strict=True)
        if turn < len(texts)
    ]
