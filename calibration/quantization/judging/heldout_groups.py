"""The held-out texts that a checkpoint is judged on, by kind and language: the samples' own where there are some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from calibration.texts.packaged import packaged_heldout

# What is measured of each group, and of each of its texts: some hundred tokens tell a divergence to a tenth.
GROUP_TOKENS, TEXT_TOKENS = 768, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldoutGroup:
    """Texts of one kind and language."""

    name: str
    texts: tuple[str, ...]
    is_judged: bool  # False: measured beside, for information


class Heldout(NamedTuple):
    """What to measure on, and against which model."""

    groups: tuple[HeldoutGroup, ...]
    reference: Path
    scratch: Path  # a folder on a disk with room for what the reference answers


def heldout_groups(own_texts: Mapping[str, Sequence[str]]) -> tuple[HeldoutGroup, ...]:
    """Return own held-out texts by kind, and the packaged ones, which are judged only where there are no own ones."""
    packaged: defaultdict[str, list[str]] = defaultdict(list)
    for kind, text in packaged_heldout():
        packaged[kind].append(text)
    return (
        *(HeldoutGroup(name=f"own {kind}", texts=tuple(texts), is_judged=True) for kind, texts in own_texts.items()),
        *(HeldoutGroup(name=kind, texts=tuple(texts), is_judged=not own_texts) for kind, texts in packaged.items()),
    )
