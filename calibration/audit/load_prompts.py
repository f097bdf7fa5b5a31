"""The prompts of an audit: all texts of a sampled set, or a random part of a source, as often as they came."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bitladder.routing.envelope import Envelope
from calibration.errors import SourceError
from calibration.sample.kind import kind_and_language
from calibration.sample.prompt import BadEntry, Prompt
from calibration.sample.sets import load
from calibration.sample.source import Source
from calibration.sample.understood import Understood
from calibration.terminal.progress import Advance

_SHOW_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedPrompt:
    """A prompt, and what its log knows of it."""

    text: str
    kind: str
    envelope: Envelope
    tier: str  # that served it; '' where it is unknown
    cut: bool = False  # it was longer
    is_chat: bool = False  # it came as messages


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedPrompts:
    """What was found in a source."""

    prompts: list[AuditedPrompt]
    skipped: dict[str, int] = field(default_factory=dict)  # entries that are no prompts, by reason


def from_set(folder: Path, max_chars: int) -> AuditedPrompts:
    """Return every text of a sampled set; a set does not keep their request constraints."""
    sample_set = load(folder)
    prompts = [
        AuditedPrompt(
            text=text.text[:max_chars],
            kind=text.kind,
            envelope=Envelope(),
            tier=text.tier,
            cut=text.cut or len(text.text) > max_chars,
        )
        for text in sample_set.calibration + sample_set.heldout
    ]
    return AuditedPrompts(prompts=prompts)


def from_source(source: Source, count: int, seed: int, max_chars: int, advance: Advance) -> AuditedPrompts:
    """Return `count` prompts, each as likely as every other, repeats included (reservoir sampling, Algorithm R).

    An audit is about the traffic as it is, so that here, unlike in `sample`, a prompt that comes often counts often.

    Raises:
        SourceError: there is none, or whole files were not understood; says what there is instead.

    """
    chance = random.Random(seed)  # noqa: S311  (a sample, no secret)
    kept: list[AuditedPrompt] = []
    skipped: Counter[str] = Counter()
    seen = 0
    understood = Understood()
    for number, entry in enumerate(_entries(source, understood), 1):
        if number % _SHOW_EVERY == 0:
            advance(number, None)
        if isinstance(entry, BadEntry):
            skipped[entry.reason] += 1
            continue
        seen += 1
        place = len(kept) if len(kept) < count else chance.randrange(seen)
        if place < count:
            kept[place : place + 1] = [_seen(entry, max_chars)]
    understood.require()
    reasons = dict(skipped.most_common())
    if not kept:
        raise SourceError(f"{source.name} has no prompt to audit (skipped: {in_words(reasons) or 'nothing'})")
    return AuditedPrompts(prompts=kept, skipped=reasons)


def _entries(source: Source, understood: Understood) -> Iterator[Prompt | BadEntry]:
    for unit in source.units(""):
        for entries in unit.prompts():
            yield from entries
        understood.add(unit.name, unit.extent)


def in_words(skipped: dict[str, int]) -> str:
    return ", ".join(f"{times:,} {reason}" for reason, times in skipped.items())


def _seen(prompt: Prompt, max_chars: int) -> AuditedPrompt:
    """Cut a prompt: a thousand whole ones may be more than memory holds."""
    kind, _ = kind_and_language(prompt.text, prompt.turns)
    cut = len(prompt.text) > max_chars
    return AuditedPrompt(
        text=prompt.text[:max_chars],
        kind=kind,
        envelope=prompt.envelope,
        tier=prompt.tier,
        cut=cut,
        is_chat=prompt.is_chat,
    )
