"""The prompts of an audit: all texts of a sampled set, or a random part of a source, as often as they came."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import SourceError
from calibration.manifest import NAME
from calibration.sample.kind import kind_and_language
from calibration.sample.prompt import Prompt
from calibration.sample.sets import load
from calibration.sample.source import Source
from dispatcher.contract import Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A prompt that is audited."""

    text: str
    kind: str
    envelope: Envelope
    tier: str  # that served it; '' where nobody knows


def is_set(path: Path) -> bool:
    return (path / NAME).is_file()


def from_set(folder: Path) -> list[Seen]:
    """Return every text of a sampled set; what was asked for with it is not kept there."""
    found = load(folder)
    texts = found.calibration + found.heldout
    return [Seen(text=its.text, kind=its.kind, envelope=Envelope(), tier=its.tier) for its in texts]


def from_source(source: Source, count: int, seed: int) -> list[Seen]:
    """Return `count` prompts, each as likely as every other, repeats included (reservoir sampling, Algorithm R).

    An audit is about the traffic as it is, so that here, unlike in `sample`, a prompt that comes often counts often.
    """
    chance = random.Random(seed)  # noqa: S311  (a sample, no secret)
    kept: list[Prompt] = []
    seen = 0
    for unit in source.units(""):
        for found in unit.prompts():
            for one in found:
                if isinstance(one, Prompt):
                    seen += 1
                    place = len(kept) if len(kept) < count else chance.randrange(seen)
                    if place < count:
                        kept[place : place + 1] = [one]
    if not kept:
        raise SourceError(f"{source.name} has no prompt to audit")
    return [
        Seen(text=one.text, kind=kind_and_language(one.text, one.turns)[0], envelope=one.envelope, tier=one.tier)
        for one in kept
    ]
