"""The figures of an audit: distributions of features, and the tiers that the policy chooses. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitladder.decision import Score
from bitladder.routing.envelope import Envelope
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from calibration.audit.features import FEATURES, NAMES, Numbers, rank_correlation, table_of
from calibration.audit.load_prompts import AuditedPrompt, AuditedPrompts
from calibration.audit.rules import decide_all, shares_by_rule, shares_by_threshold, shares_of

ALL = "all"
UNKNOWN = "unknown"
OTHERS = "others"
# A log's tier may be anything, and a page can only show so many.
_MAX_GROUPS = 12
_QUANTILES = (5, 25, 50, 75, 95)


def groups(prompts: Sequence[AuditedPrompt], part: str) -> dict[str, list[int]]:
    """Return the places of the prompts by kind or by tier, the largest group first, the smallest ones together."""
    names = [getattr(prompt, part) or UNKNOWN for prompt in prompts]
    largest = [name for name, _ in Counter(names).most_common() if name not in (ALL, OTHERS)][:_MAX_GROUPS]
    by_name: dict[str, list[int]] = {name: [] for name in (*largest, OTHERS)}
    for at, name in enumerate(names):
        by_name[name if name in largest else OTHERS].append(at)
    return {name: places for name, places in by_name.items() if places}


def _distributions(numbers: Numbers, places_of: dict[str, list[int]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean and quantiles of every feature, of all prompts and of every group."""
    with_all = {ALL: list(range(len(numbers)))} | places_of
    return {
        feature.name: {name: _spread(numbers[places, column]) for name, places in with_all.items()}
        for column, feature in enumerate(FEATURES)
    }


def _shares(
    floor_of: Sequence[str], ladder: Sequence[str], places_of: dict[str, list[int]]
) -> dict[str, dict[str, float]]:
    """Return the share of prompts with each floor tier, of all prompts and of every group."""
    with_all = {ALL: list(range(len(floor_of)))} | places_of
    return {name: shares_of([floor_of[at] for at in places], ladder) for name, places in with_all.items()}


def _correlations(numbers: Numbers) -> dict[str, float | None]:
    """Return how closely every feature follows the entropy (Spearman)."""
    entropy = numbers[:, NAMES.index("entropy")]
    return {
        name: rank_correlation(numbers[:, column], entropy) for column, name in enumerate(NAMES) if name != "entropy"
    }


def aggregate_figures(
    taken: AuditedPrompts,
    scores: Sequence[Score],
    ladder: tuple[str, ...],
    policy: PolicySettings,
    tables: Mapping[str, NamedPolicySettings],
) -> dict[str, Any]:
    """Return all figures, as JSON."""
    prompts, numbers = taken.prompts, table_of(scores)
    by_kind, by_tier = groups(prompts, "kind"), groups(prompts, "tier")
    decisions = decide_all(prompts, scores, ladder, policy, tables)
    floor_of = [decision.floor for decision in decisions]
    above = float((numbers[:, NAMES.index("entropy")] > policy.entropy_bits).mean())
    return {
        "prompts": len(prompts),
        "cut": sum(prompt.cut for prompt in prompts),
        "skipped": taken.skipped,
        "policy": policy.model_dump(mode="json"),
        "decided_by": decisions[0].label,
        "with_an_envelope": sum(prompt.envelope != Envelope() for prompt in prompts),
        "ladder": list(ladder),
        "kinds": {name: len(places) for name, places in by_kind.items()},
        "tiers": {name: len(places) for name, places in by_tier.items()},
        "above_entropy_bits": above,
        "floors_by_kind": _shares(floor_of, ladder, by_kind),
        "floors_by_tier": _shares(floor_of, ladder, by_tier),
        "floors_by_rule": shares_by_rule(decisions, ladder),
        "floors_by_threshold": shares_by_threshold(prompts, scores, ladder, policy),
        "features_by_kind": _distributions(numbers, by_kind),
        "features_by_tier": _distributions(numbers, by_tier),
        "correlation_with_entropy": _correlations(numbers),
    }


def digits(number: float) -> str:
    """Format a number: three digits, or all before the decimal point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _spread(values: Numbers) -> dict[str, float]:
    at = np.percentile(values, _QUANTILES)
    quantiles = {f"p{percent}": round(float(value), 4) for percent, value in zip(_QUANTILES, at, strict=True)}
    return {"mean": round(float(values.mean()), 4), **quantiles}
