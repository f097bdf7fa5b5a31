"""Fit what each tier loses, and find the highest limit that a promise allows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitladder.policy_forms import LearnedForm
from calibration.audit.features import rank_correlation
from calibration.control.losses import Labels
from calibration.control.predictors.registry import PREDICTORS
from calibration.control.promise import high_probability, labels_needed, on_average
from calibration.control.scores import chosen_tiers
from calibration.errors import InputError

Numbers = NDArray[np.float64]
Rows = NDArray[np.intp]
MIN_LABELS = 50
# Shares of the labels: for the fit, for the promise, and the rest for figures that nothing was chosen by.
_FIT, _PROMISE = 0.4, 0.4
_STEPS = 100  # candidate limits, of equal shares of the fit's labels
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be promised: a share of requests that lose more than `threshold`."""

    costs: dict[str, float]  # of every tier that counts, in any order; the dearest one is the top
    measure: str
    threshold: float
    alpha: float
    delta: float
    promise: str
    seed: int

    @property
    def ladder(self) -> tuple[str, ...]:
        """The tiers by cost, the cheapest first."""
        return tuple(sorted(self.costs, key=lambda tier: self.costs[tier]))


def tune(labels: Labels, question: Question) -> tuple[LearnedForm | None, dict[str, Any]]:  # Any: JSON
    """Return the policy that keeps the promise, or None where the labels cannot promise it, and all figures.

    Raises:
        InputError: there are too few labels to say anything.

    """
    if len(labels) < MIN_LABELS:
        raise InputError(f"{len(labels)} labels have a loss of every tier, expected at least {MIN_LABELS}")
    fitted_on, promised_on, tested_on = _divided(len(labels), question.seed)
    added = _added(labels, question.ladder[-1])
    left_out = _dominated({tier: float(added[tier][fitted_on].mean()) for tier in added}, question.costs)
    tiers = [tier for tier in question.ladder[:-1] if tier not in left_out]
    ladder = [*tiers, question.ladder[-1]]
    fit = PREDICTORS["ridge"].fit(labels, added, tiers, fitted_on, question.seed)
    bounds = fit.losses(labels, np.arange(len(labels)))
    losses = np.array([added[tier] for tier in tiers] + [np.zeros(len(labels))]).T
    over = (losses > question.threshold).astype(float)
    limits = np.unique(np.quantile(bounds[fitted_on].min(axis=1), np.linspace(0, 1, _STEPS + 1)))
    candidates = [_of_chosen(over, bounds, float(limit), promised_on) for limit in limits]
    place = _last_promised(candidates, question)
    limit = None if place is None else float(limits[place])
    chosen = chosen_tiers(bounds[tested_on], -1.0 if limit is None else limit)
    costs = np.array([question.costs[tier] for tier in ladder])
    figures = {
        "labels": {"fit": len(fitted_on), "promise": len(promised_on), "test": len(tested_on)},
        "ladder": ladder,
        "left_out": left_out,
        "spearman": _correlations(labels, added, tiers[0], bounds[:, 0], tested_on),
        "limit": limit,
        "next": _next_step(candidates, -1 if place is None else place, question),
        "held_out": _held_out(ladder, costs, losses[tested_on], over[tested_on], chosen),
    }
    if limit is None:
        return None, figures
    words = f"{question.measure}, over {question.threshold:g} in at most {question.alpha:.3g} of requests"
    form = fit.export()
    return form and msgspec.structs.replace(form, measure=words[:200], limit=limit), figures


def _divided(count: int, seed: int) -> tuple[Rows, Rows, Rows]:
    """Return the rows for the fit, for the promise and for the test, drawn by chance."""
    order = np.random.default_rng(seed).permutation(count)
    first, second = int(_FIT * count), int((_FIT + _PROMISE) * count)
    return order[:first], order[first:second], order[second:]


def _last_promised(candidates: Sequence[Numbers], question: Question) -> int | None:
    if question.promise == "mean":
        return on_average(candidates, question.alpha)
    return high_probability(candidates, question.alpha, question.delta)


def _added(labels: Labels, top: str) -> dict[str, Numbers]:
    """Return what each tier loses beyond the top of the ladder."""
    of_top = labels.losses.get(top, np.zeros(len(labels)))
    return {tier: np.maximum(losses - of_top, 0.0) for tier, losses in labels.losses.items() if tier != top}


def _dominated(losses: dict[str, float], costs: dict[str, float]) -> dict[str, str]:
    """Return the tiers that another one beats in cost without losing more, and which one that is."""
    reasons = {}
    for tier, loss in losses.items():
        for other in losses:
            if costs[other] < costs[tier] and losses[other] <= loss:
                reasons[tier] = f"{other} costs {costs[other]:g} and loses {losses[other]:.4g}: no more than {loss:.4g}"
    return reasons


def _of_chosen(table: Numbers, bounds: Numbers, limit: float, rows: Rows) -> Numbers:
    chosen: Numbers = table[rows, chosen_tiers(bounds[rows], limit)]
    return chosen


def _correlations(
    labels: Labels, added: dict[str, Numbers], tier: str, predictions: Numbers, rows: Rows
) -> dict[str, float | None]:
    """Return how closely predictions follow the lowest tier's loss: of held-out labels, and of held-out sources."""
    figures = {"random": rank_correlation(predictions[rows], added[tier][rows])}
    for name in set(labels.names) & {"entropy", "zlib_ratio"}:
        figures[name] = rank_correlation(labels.features[rows, labels.names.index(name)], added[tier][rows])
    _, numbers = np.unique(np.array(labels.sources), return_inverse=True)
    if numbers.max() + 1 >= _FOLDS:
        predicted = np.empty(len(labels))
        for fold in range(_FOLDS):
            within = np.flatnonzero(numbers % _FOLDS == fold)
            others = PREDICTORS["ridge"].fit(labels, added, [tier], np.flatnonzero(numbers % _FOLDS != fold), 0)
            predicted[within] = others.losses(labels, within)[:, 0]
        figures["by_source"] = rank_correlation(predicted, added[tier])
    return figures


def _next_step(candidates: Sequence[Numbers], place: int, question: Question) -> dict[str, Any] | None:  # Any: JSON
    """Return what the first candidate that is not promised loses, and how many more labels would prove it."""
    if place + 1 == len(candidates):
        return None
    losses = candidates[place + 1]
    needed = labels_needed(float(losses.mean()), question.alpha, question.delta, beyond=len(losses))
    more = None if needed is None else math.ceil((needed - len(losses)) / _PROMISE)
    return {"share_over": float(losses.mean()), "more_labels": more}


def _held_out(
    ladder: Sequence[str], costs: Numbers, losses: Numbers, over: Numbers, chosen: Rows
) -> dict[str, Any]:  # Any: JSON
    """Return what the policy does with labels that nothing was chosen by, and each tier alone."""
    rows = np.arange(len(chosen))
    alone = {
        tier: {"cost": float(costs[at]), "loss": float(losses[:, at].mean()), "over": float(over[:, at].mean())}
        for at, tier in enumerate(ladder)
    }
    return {
        "shares": {tier: float((chosen == at).mean()) for at, tier in enumerate(ladder)},
        "cost": float(costs[chosen].mean()),
        "loss": float(losses[rows, chosen].mean()),
        "over": float(over[rows, chosen].mean()),
        "alone": alone,
    }
