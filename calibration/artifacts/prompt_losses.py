"""prompts.jsonl of an evaluation: for each held-out text its features, and what every checkpoint loses on it.

A line stands alone and names its set and its checkpoints by digest and by name, so that lines of several evaluations
can be read as one table: features -> losses of each tier. Fields that were not measured are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

SCHEMA = 1


class NamedSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where something came from, and what it was."""

    name: str  # a path, or `packaged`
    sha256: str


class WorstPassage(msgspec.Struct, frozen=True, kw_only=True):
    """The passage of a text on which a tier is furthest from the reference."""

    start: int  # its first token
    tokens: int
    kl: float
    begins: str  # its first characters


class TextLoss(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a checkpoint predicts the text itself; figures are means of its tokens."""

    tokens: int  # that were predicted: fewer than the text has, where the budget ended
    nats: float  # -log of the probability of the token that followed
    kl: float | None = None  # from here on against the reference, which has none of it; a lower bound
    flips: float | None = None  # share of tokens where another one is likeliest
    worst: WorstPassage | None = None


class AnswerLoss(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a checkpoint predicts the reference's answer to the text."""

    form: str  # chat: asked through the chat template; text: as it is
    tokens: int
    kl: float | None = None
    flips: float | None = None
    prefix: int | None = None  # tokens before the first flip: there its own answer goes another way


class CheckpointLosses(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one checkpoint loses on a text."""

    checkpoint: NamedSource
    text: TextLoss | None = None
    answer: AnswerLoss | None = None


class PromptLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    schema: int = SCHEMA
    id: str  # of the text, as the sampled set has it
    kind: str
    language: str
    group: str
    set: NamedSource
    reference: str  # the tier that losses are against
    features: dict[str, float]  # as the intake computes them (bitladder/routing/features.py)
    tiers: dict[str, CheckpointLosses]  # the reference, too


def encode_lines(lines: Iterable[PromptLine]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
