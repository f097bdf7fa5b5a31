"""The held-out half of a sampled set by kind and language, for whoever judges a checkpoint by it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from calibration.sample.kind import NO_LANGUAGE
from calibration.sample.sets import SampledText, load

# A smaller kind says little, and joins the others that are small.
_MIN_CHARS = 1500
MAX_KINDS = 12
_OTHER = "other"


def heldout_by_kind(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the texts of the largest kinds; what is left is one more. {} where nothing is held out."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for text in load(folder).heldout:
        kinds[_name(text)].append(text.text)
    by_size = sorted(kinds.items(), key=lambda entry: -_chars(entry[1]))
    kept = {name: tuple(texts) for name, texts in by_size[:MAX_KINDS] if _chars(texts) >= _MIN_CHARS}
    left = tuple(text for name, texts in by_size if name not in kept for text in texts)
    return kept | ({_OTHER: left} if left else {})


def _name(text: SampledText) -> str:
    return text.kind if text.language == NO_LANGUAGE else f"{text.kind} {text.language}"


def _chars(texts: list[str]) -> int:
    return sum(map(len, texts))
