"""What the lowest tier's answer shows after its first tokens, and what has been spent by then. Pure.

A label has it beside what it says of the whole answer: `own.beginnings.8.margin` beside `own.margin`, and `own.tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.control.ablation.cost_curves import Numbers
from calibration.control.ablation.label_extras import Beside
from calibration.control.losses import Labels, number_at

Entries = Sequence[Mapping[str, Any]]  # JSON
_MAX_COUNTS = 8  # each of them makes five policies


@dataclass(frozen=True, slots=True)
class SeenAnswer:
    """An answer that is judged once so many tokens of it are written; None, or if it is shorter: when it is whole."""

    tokens: int | None
    sure: Mapping[str, Numbers]  # by the names of the whole answer's
    spent: Numbers  # of the lowest tier's cost, from 0 to 1


@dataclass(slots=True)
class SeenAnswers:
    """What the labels say of whole answers, and of beginnings by the number of tokens."""

    whole: SeenAnswer
    early: list[SeenAnswer] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # the reason


def seen_answers(beside: Beside, labels: Labels, prompt_weight: float) -> SeenAnswers:
    """Return what labels say of answers; of beginnings nothing, where none has one.

    A token of the prompt costs `prompt_weight` of one of the answer. The whole prompt is paid for before the first
    token, so that short answers to long prompts spare little.
    """
    seen, under = SeenAnswers(SeenAnswer(None, beside.sure, np.ones(len(labels)))), _common_name(beside.sure)
    if not (counts := _counts(beside.entries, under)):
        return seen
    lengths = _column(beside.entries, f"{under}.tokens")
    if not (lengths >= 1).all():
        seen.left_out["cascades after some tokens"] = f"{under}.tokens must be 1 or more in every label"
        return seen
    if prompt_weight and "tokens" not in labels.names:
        seen.left_out["cascades after some tokens"] = (
            "labels lack the feature tokens, by which the prompt's part of a cost is counted (--prompt-weight 0: none)"
        )
        return seen
    prompt = prompt_weight * labels.features[:, labels.names.index("tokens")] if prompt_weight else 0.0
    for count in counts:
        columns = {name: _column(beside.entries, _begun(name, under, count)) for name in beside.sure}
        lacking = np.any([np.isnan(values) for values in columns.values()], axis=0)
        if (lacking & (lengths > count)).any():
            seen.left_out[f"cascades after {count} tokens"] = f"{under}.beginnings lacks it in some longer answers"
            continue
        sure = {name: np.where(lacking, beside.sure[name], values) for name, values in columns.items()}
        written = np.where(lacking, lengths, np.minimum(count, lengths))
        seen.early.append(SeenAnswer(count, sure, (prompt + written) / (prompt + lengths)))
    return seen


def _begun(name: str, under: str, count: int) -> str:
    return f"{under}.beginnings.{count}.{name.removeprefix(f'{under}.')}"


def _common_name(names: Mapping[str, Numbers]) -> str:
    """Return what these names are under: `own` of `own.entropy` and `own.margin`; '' where they differ."""
    under = {name.rpartition(".")[0] for name in names}
    return under.pop() if len(under) == 1 else ""


def _counts(entries: Entries, under: str) -> list[int]:
    """Return the numbers of tokens of which any label says something."""
    keys: set[str] = set()
    for entry in entries if under else ():
        part: Any = entry
        for name in (*under.split("."), "beginnings"):
            part = part.get(name) if isinstance(part, Mapping) else None
        keys |= part.keys() if isinstance(part, Mapping) else set()
    return sorted(int(key) for key in keys if key.isascii() and key.isdecimal() and int(key[:7]) > 0)[:_MAX_COUNTS]


def _column(entries: Entries, name: str) -> Numbers:
    return np.array([_number(entry, name) for entry in entries])


def _number(entry: Mapping[str, Any], name: str) -> float:
    """Return a number of an entry; nan where it has none."""
    value = number_at(entry, name)
    return float(value) if value is not None and math.isfinite(value) else math.nan
