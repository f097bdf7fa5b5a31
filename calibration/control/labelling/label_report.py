"""What the labels say of themselves: mean losses with intervals, and how reliable a label is. Pure.

A label is a mean over the tokens of one answer: another answer of the same prompt would have another one. How much of
what differs between prompts would come again is the label's reliability: no score can correlate with such labels by
more than its square root. It is estimated from the parts of each label, which are the two halves of its answer, or
several answers (Spearman-Brown).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from calibration.audit.features import Numbers, rank_correlation
from calibration.control.labelling.label_lines import LabelLine, kinds_of
from calibration.control.labelling.label_losses import TierLabel
from calibration.statistics import bootstrap_mean, wilson

# A figure of fewer prompts is no figure.
_MIN_ROWS = 3
_LOSSES: dict[str, Callable[[TierLabel], float | None]] = {
    "answer.kl": lambda label: label.answer.kl if label.answer else None,
    "answer.flips": lambda label: label.answer.flips if label.answer else None,
    "answer.repeated": lambda label: label.answer.repeated if label.answer else None,
    "text.kl": lambda label: label.text.kl if label.text else None,
}
_FEATURES = ("entropy", "zlib_ratio")


def describe_labels(lines: Sequence[LabelLine]) -> dict[str, Any]:  # Any: JSON
    """Return the figures of every tier; intervals of 95 % are over prompts."""
    tiers = dict.fromkeys(tier for line in lines for tier in line.tiers if line.tiers[tier].answer)
    kinds = kinds_of(lines)
    return {
        tier: {
            "means": _means(lines, tier),
            "by_kind": {kind: _means(kinds[kind], tier) for kind in sorted(kinds)},
            "reliability": reliability(_parts(lines, tier)),
            "spearman": {name: _correlation(lines, tier, name) for name in _FEATURES},
        }
        for tier in tiers
    }


def reliability(parts: Numbers) -> dict[str, float | int] | None:
    """Return how the losses of parts (columns) correlate in rank, and what it says of labels; None: few, or constant.

    `between` is the mean over pairs of parts; Spearman and Brown's formula has the reliability of all parts together.
    """
    count = parts.shape[1]
    pairs = combinations(parts.T, 2)
    correlations = [value for pair in pairs if (value := rank_correlation(*pair)) is not None]
    if len(parts) < _MIN_ROWS or not correlations:
        return None
    between = sum(correlations) / len(correlations)
    whole = count * between / (1 + (count - 1) * between) if between > 0 else 0.0
    shares = {"between": round(between, 4), "whole": round(whole, 4), "highest": round(whole**0.5, 4)}
    return shares | {"parts": count, "n": len(parts)}


def _parts(lines: Sequence[LabelLine], tier: str) -> Numbers:
    answers = [answer for line in lines if tier in line.tiers and (answer := line.tiers[tier].answer)]
    parts = [answer.kl_answers for answer in answers if answer.kl_answers]
    parts = parts or [answer.kl_halves for answer in answers if answer.kl_halves]
    count = max(map(len, parts), default=2)
    return np.array([part for part in parts if len(part) == count]).reshape(-1, count)


def _means(lines: Sequence[LabelLine], tier: str) -> dict[str, Any]:  # Any: JSON
    labels = [line.tiers[tier] for line in lines if tier in line.tiers]
    means: dict[str, Any] = {}
    for name, read in _LOSSES.items():
        losses = np.array([loss for label in labels if (loss := read(label)) is not None])
        if len(losses):
            means[name] = _figure(float(losses.mean()), *bootstrap_mean(losses), len(losses))
    wrong = [label.task.wrong for label in labels if label.task]
    if wrong:
        means["task.wrong"] = _figure(sum(wrong) / len(wrong), *wilson(sum(wrong), len(wrong)), len(wrong))
    return means


def _correlation(lines: Sequence[LabelLine], tier: str, feature: str) -> float | None:
    pairs = [
        (line.features[feature], answer.kl)
        for line in lines
        if tier in line.tiers and (answer := line.tiers[tier].answer)
    ]
    columns = np.array(pairs).reshape(-1, 2)
    correlation = rank_correlation(columns[:, 0], columns[:, 1])
    return None if correlation is None else round(correlation, 4)


def _figure(value: float, low: float, high: float, count: int) -> dict[str, float | int]:
    return {"value": round(value, 6), "low": round(low, 6), "high": round(high, 6), "n": count}
