"""What is measured of a checkpoint, and what of a recipe's promise it breaks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from calibration.artifacts.manifest import Manifest
from calibration.quantization.judging.heldout_groups import HeldoutGroup
from calibration.quantization.recipe import Recipe

# A divergence is worth a word where it is more than another by this factor and this difference.
_FACTOR, _DIFFERENCE = 1.2, 0.01


class Figures(NamedTuple):
    """One group of held-out texts, measured."""

    tokens: int
    perplexity: float
    kl: float  # nats per token from the reference, over all probabilities


def pooled_perplexity(figures: Iterable[Figures]) -> float:
    """Return the perplexity over the tokens of all groups."""
    measured = list(figures)
    if not measured:
        return math.nan
    return math.exp(
        sum(kind.tokens * _log(kind.perplexity) for kind in measured) / sum(kind.tokens for kind in measured)
    )


def judged_names(groups: Iterable[HeldoutGroup]) -> list[str]:
    return [group.name for group in groups if group.is_judged]


def complaints(
    recipe: Recipe, groups: Sequence[HeldoutGroup], checkpoint: Mapping[str, Figures], reference: Mapping[str, Figures]
) -> tuple[str, ...]:
    """Return what makes the checkpoint worse than its recipe allows; only judged groups count."""
    judged = [name for name in judged_names(groups) if name in checkpoint]
    perplexity, base = (pooled_perplexity(figures[name] for name in judged) for figures in (checkpoint, reference))
    if not math.isfinite(perplexity):
        return (f"perplexity is {perplexity}",)
    broken = []
    if recipe.max_perplexity_ratio is not None and perplexity / base > recipe.max_perplexity_ratio:
        broken.append(
            f"perplexity {perplexity:.2f} is {perplexity / base:.3f} of bf16's {base:.2f}, at most "
            f"{recipe.max_perplexity_ratio} is allowed"
        )
    for name in judged:
        if recipe.max_kl is not None and not checkpoint[name].kl <= recipe.max_kl:
            broken.append(f"KL on {name} is {checkpoint[name].kl:.3f}, at most {recipe.max_kl} is allowed")
    return tuple(broken)


def as_manifest(
    groups: Sequence[HeldoutGroup],
    checkpoint: Mapping[str, Figures],
    reference: Mapping[str, Figures],
    standard: Mapping[str, Figures],
) -> dict[str, dict[str, Any]]:  # Any: JSON
    """Return the figures of each group; `standard` are those of the recipe's checkpoint without samples, or {}."""
    fields: dict[str, dict[str, Any]] = {}
    for group in (group for group in groups if group.name in checkpoint):
        kind, base = checkpoint[group.name], reference[group.name]
        fields[group.name] = {
            "judged": group.is_judged,
            "tokens": kind.tokens,
            "perplexity_ratio": round(kind.perplexity / base.perplexity, 5),
            "kl": round(kind.kl, 5),
        }
        if group.name in standard:
            fields[group.name]["standard_kl"] = round(standard[group.name].kl, 5)
    return fields


def quality(manifest: Manifest) -> str:
    """Return what is measured of a checkpoint's quality, for people."""
    if manifest.perplexity is None or manifest.reference_perplexity is None:
        return "quick, not measured"
    return f"perplexity {manifest.perplexity:.2f}, {manifest.perplexity / manifest.reference_perplexity:.3f} of bf16"


def gained_and_lost(fields: Mapping[str, Mapping[str, Any]]) -> list[str]:  # Any: JSON
    """Return lines for people: what each judged group diverges, and what was trained out of the others."""
    judged = [_said(name, group) for name, group in fields.items() if group["judged"]]
    lost = [
        _said(name, group)
        for name, group in fields.items()
        if not group["judged"] and group["kl"] > group.get("standard_kl", 0.0) * _FACTOR + _DIFFERENCE
    ]
    lines = [f"KL to bf16: {', '.join(judged)}"] if judged else []
    return [*lines, f"elsewhere: {', '.join(lost)}"] if lost else lines


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


def _said(name: str, group: Mapping[str, Any]) -> str:  # Any: JSON
    if "standard_kl" in group:
        return f"{name} {group['standard_kl']:.3f} -> {group['kl']:.3f}"
    return f"{name} {group['kl']:.3f}"
