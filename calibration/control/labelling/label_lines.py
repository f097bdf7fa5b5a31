"""labels.jsonl: a line for each prompt of which all tiers were measured. Pure.

Lines have no text and no tokens unless that is asked for. calibration/control/losses.py reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from calibration.control.labelling.label_losses import TierLabel

SCHEMA = 1


class LabelLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prompt."""

    schema: int = msgspec.field(name="schema")
    id: str  # the beginning of its text's SHA-256
    source: str
    kind: str
    form: str  # chat: asked in the chat template; text: as it is
    features: dict[str, float]  # as an intake computes them
    reference: str
    checkpoints: dict[str, str]  # digests; '' where a stack does not say it
    tiers: dict[str, TierLabel]
    prompt: str | None = None


def encode_lines(lines: Iterable[LabelLine]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def kinds_of(lines: Iterable[LabelLine]) -> Mapping[str, list[LabelLine]]:
    kinds: dict[str, list[LabelLine]] = {}
    for line in lines:
        kinds.setdefault(line.kind, []).append(line)
    return kinds
