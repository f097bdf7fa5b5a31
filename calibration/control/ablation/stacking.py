"""A router and an early cascade together: some requests go up at once, others after a few tokens of an answer. Pure.

Two limits, for each budget the pair that loses least within it: on labels of the other folds, as those are predicted by
fits that saw neither them nor the fold that is shown. Nothing is chosen by the labels that a figure is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.control.ablation.cost_curves import Family, Numbers, at_random
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Predictor, Rows

MIN_FOLDS = 3  # one that is shown, one that is predicted, one that is fitted
BUDGETS, LIMITS = 51, 40


@dataclass(frozen=True, slots=True)
class Stages:
    """What is predicted of each label in both stages, a row for each fold that is shown."""

    first: Numbers  # before anybody answers
    second: Numbers  # after some tokens of the lowest tier's answer


def nested(predictor: Predictor, labels: Labels, losses: Mapping[str, Numbers], folds: Rows, seed: int) -> Numbers:
    """Return what the lowest tier is predicted to lose, a row for each fold that is shown.

    In each row, its own labels are predicted by a fit to all others, and those of another fold by a fit to neither.

    Raises:
        InputError: the labels lack what the predictor needs.

    """
    count = int(folds.max()) + 1
    lowest = next(iter(losses))
    predicted = np.empty((count, len(labels)))

    def fill(shown: int, other: int) -> None:
        fitted = predictor.fit(labels, losses, [lowest], np.flatnonzero((folds != shown) & (folds != other)), seed)
        for row, fold in {(shown, other), (other, shown)}:
            rows = np.flatnonzero(folds == fold)
            predicted[row, rows] = fitted.losses(labels, rows)[:, 0]

    for shown in range(count):
        for other in range(shown, count):
            fill(shown, other)
    return predicted


def stacked(stages: Stages, spent: Numbers, folds: Rows, costs: Numbers, losses: Numbers) -> Family:
    """Return the policies of all budgets: up at once over the first limit, else up after some tokens over the second.

    `spent`: the share of the lowest tier's cost that is gone by then. Up is the next tier that random shares would use.
    """
    random = at_random(costs, losses)
    tier = int(random.choices[0, 1])
    late = spent * costs[0] + costs[tier]
    budgets = np.linspace(costs[0], costs[tier], BUDGETS)
    paid, is_up = np.empty((len(folds), BUDGETS)), np.empty((len(folds), BUDGETS), bool)
    for fold in range(len(stages.first)):
        first, second = stages.first[fold], stages.second[fold]
        rest, rows = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        saved = losses[rest, 0] - losses[rest, tier]
        limits = _limits(first[rest], second[rest], (costs[0], costs[tier]), late[rest], saved, budgets)
        at_once = first[rows, None] > limits[:, 0]
        is_late = ~at_once & (second[rows, None] > limits[:, 1])
        paid[rows] = np.where(at_once, costs[tier], np.where(is_late, late[rows, None], costs[0]))
        is_up[rows] = at_once | is_late
    order = np.argsort(paid.mean(axis=0), kind="stable")
    paid, is_up = paid[:, order], is_up[:, order]
    lost = np.where(is_up, losses[:, [tier]], losses[:, :1])
    return Family(
        choices=np.hstack([is_up * np.int8(tier), random.choices[:, 1:]]),
        costs=np.hstack([paid, random.costs[:, 1:]]),
        losses=np.hstack([lost, random.losses[:, 1:]]),
    )


def _limits(
    first: Numbers, second: Numbers, costs: tuple[float, float], late: Numbers, saved: Numbers, budgets: Numbers
) -> Numbers:
    """Return for each budget the two limits that save most within it."""
    tried = [_tried(first), _tried(second)]
    stays = (first[:, None] <= tried[0]).astype(float)
    goes = (second[:, None] > tried[1]).astype(float)
    low, high = costs
    cost = high + (stays * (low - high)).sum(axis=0)[:, None] / len(first) + _mean(stays, goes, late - low)
    gain = saved.mean() - _mean(stays, 1 - goes, saved)
    order: NDArray[np.intp] = np.argsort(cost, axis=None, kind="stable")
    gains = gain.ravel()[order]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(gains)[:-1]))
    best = np.maximum.accumulate(np.where(gains > best_before + 1e-12, np.arange(len(gains)), 0))
    within = np.searchsorted(cost.ravel()[order], budgets * (1 + 1e-9), side="right") - 1
    places = np.unravel_index(order[best[np.maximum(within, 0)]], cost.shape)
    return np.column_stack([tried[stage][at] for stage, at in enumerate(places)])


def _mean(stays: Numbers, goes: Numbers, values: Numbers) -> Numbers:
    """Return the mean of the values over all labels, of those that stay and then go, for each pair of limits."""
    return np.asarray(stays.T @ (goes * values[:, None]) / len(values))


def _tried(values: Numbers) -> Numbers:
    return np.array([np.inf, *np.unique(np.quantile(values, np.linspace(0, 1, LIMITS), method="nearest")), -np.inf])
