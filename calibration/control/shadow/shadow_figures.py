"""What the labels of a shadow say of the traffic: losses, wins and ties against the reference, and savings. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from calibration.control.losses import number_at
from calibration.statistics import bootstrap, wilson

Verdict = Literal["win", "tie", "loss"]
VERDICTS: tuple[Verdict, ...] = ("win", "tie", "loss")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One label, as far as it is summed up."""

    job: str
    served_by: str
    is_reference: bool  # the reference served it: nothing is lost
    loss: float
    is_over: bool
    is_same: bool  # the tier's answer is the reference's, token for token
    verdict: Verdict
    cost: float | None = None
    reference_cost: float | None = None


def outcome_of(label: Mapping[str, Any], measure: str, threshold: float) -> Outcome | None:
    """Return what a label says under a measure; None: it does not have that measure."""
    served, reference = label["served_by"], label["reference"]
    entry = label["tiers"].get(served, {})
    loss = number_at(entry, measure)
    if served == reference:
        loss = 0.0
    if loss is None:
        return None
    is_same = served == reference or number_at(entry, "answer.flips") == 0
    costs = label.get("costs") or {}
    return Outcome(
        job=label["job"],
        served_by=served,
        is_reference=served == reference,
        loss=loss,
        is_over=loss > threshold,
        is_same=is_same,
        verdict="tie" if is_same else _verdict(label["tiers"], served, reference, is_over=loss > threshold),
        cost=costs.get("served"),
        reference_cost=costs.get("reference"),
    )


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return figures of each low tier, of all traffic, and what the low tiers have saved; intervals are of 95 %."""
    low = [outcome for outcome in outcomes if not outcome.is_reference]
    by_tier: dict[str, list[Outcome]] = {}
    for outcome in low:
        by_tier.setdefault(outcome.served_by, []).append(outcome)
    return {
        "tiers": {tier: _losses(by_tier[tier]) | _verdicts(by_tier[tier]) for tier in sorted(by_tier)},
        "all_traffic": _losses(outcomes),
        "savings": _savings(low),
    }


def _verdict(tiers: Mapping[str, Any], served: str, reference: str, *, is_over: bool) -> Verdict:
    """Judge two different answers: by the task's check where there is one, else by the loss."""
    wrong, reference_wrong = (number_at(tiers.get(tier, {}), "task.wrong") for tier in (served, reference))
    if wrong is not None and reference_wrong is not None:
        return "tie" if wrong == reference_wrong else "win" if wrong < reference_wrong else "loss"
    return "loss" if is_over else "tie"


def _losses(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    if not outcomes:
        return {"labels": 0}
    over = sum(outcome.is_over for outcome in outcomes)
    losses = np.array([(outcome.loss, 1.0) for outcome in outcomes])
    return {
        "labels": len(outcomes),
        "over": _share(over, len(outcomes)),
        "mean_loss": {
            "value": float(losses[:, 0].mean()),
            "interval": list(bootstrap(losses, lambda loss, count: loss / count)),
        },
    }


def _verdicts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    counts = Counter(outcome.verdict for outcome in outcomes)
    same = sum(outcome.is_same for outcome in outcomes)
    return {name: _share(counts[name], len(outcomes)) for name in VERDICTS} | {"same": _share(same, len(outcomes))}


def _share(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "share": count / total, "interval": list(wilson(count, total))}


def _savings(low: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the low tiers cost less than the reference would have, of the requests whose costs are known."""
    pairs = np.array(
        [
            (outcome.reference_cost - outcome.cost, outcome.reference_cost, 1.0)
            for outcome in low
            if outcome.cost is not None and outcome.reference_cost is not None
        ]
    )
    if not len(pairs):
        return {"requests": 0}
    saved, all_on_reference, count = map(float, pairs.sum(axis=0))
    return {
        "requests": int(count),
        "per_request": saved / count,
        "per_request_interval": list(bootstrap(pairs, lambda part, _, requests: part / requests)),
        "share": saved / all_on_reference if all_on_reference else None,
        "all_on_reference": all_on_reference,
    }
