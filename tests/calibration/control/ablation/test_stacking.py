"""Two limits, against an optimum by hand; and that no label decides over the figure it is shown in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.control.ablation.cost_curves import at_random, by_limit, cascade, curves
from calibration.control.ablation.stacking import Stages, nested, stacked
from calibration.control.losses import Labels
from calibration.control.predictors.ridge import Ridge

COSTS = np.array([0.2, 1.0])
COUNT, FOLDS = 1600, 5


def alike(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same predictions for every fold that is shown."""
    return np.tile(values, (FOLDS, 1))


def test_what_the_prompt_shows_goes_up_at_once_and_what_the_beginning_shows_after_it() -> None:
    # A quarter loses 1, as the prompt shows; a quarter of the rest does, as the answer's beginning shows.
    place = np.arange(COUNT)
    at_once, later = place % 4 == 0, (place % 4 != 0) & (place // 4 % 4 == 0)
    losses = np.column_stack([at_once | later, np.zeros(COUNT)]).astype(float)
    spent, folds = np.full(COUNT, 0.25), place // 16 % FOLDS
    weights = np.ones((1, COUNT))
    first, second = at_once.astype(float), (at_once | later).astype(float)

    shown = curves(stacked(Stages(alike(first), alike(second)), spent, folds, COSTS, losses), weights)
    router = curves(by_limit(first[:, None], COSTS, losses), weights)
    early = curves(cascade(second, spent, COSTS, losses), weights)

    # 0.25 at the top, 0.1875 at both (1.05), 0.5625 at the lowest tier.
    cheapest = 0.25 * 1 + 0.1875 * 1.05 + 0.5625 * 0.2
    assert shown.cost_at(np.array([0.0]))[0] == pytest.approx(cheapest, abs=0.02)
    assert early.cost_at(np.array([0.0]))[0] == pytest.approx(0.4375 * 1.05 + 0.5625 * 0.2, abs=1e-6)
    assert router.cost_at(np.array([0.0]))[0] == pytest.approx(1.0)
    assert shown.area()[0] < early.area()[0] < router.area()[0] < curves(at_random(COSTS, losses), weights).area()[0]
    assert (shown.costs[0, 0], shown.costs[0, -1]) == pytest.approx((0.2, 1.0))


def test_a_beginning_that_says_nothing_costs_nothing() -> None:
    chance = np.random.default_rng(3)
    losses = np.column_stack([chance.random(COUNT), np.zeros(COUNT)])
    folds, weights = np.arange(COUNT) % FOLDS, np.ones((1, COUNT))
    first, second = losses[:, 0], chance.random(COUNT)

    shown = curves(stacked(Stages(alike(first), alike(second)), np.full(COUNT, 0.5), folds, COSTS, losses), weights)

    assert shown.area() == pytest.approx(curves(by_limit(first[:, None], COSTS, losses), weights).area(), rel=0.03)


def test_the_labels_of_a_fold_decide_nothing_where_it_is_shown() -> None:
    chance = np.random.default_rng(4)
    count = 200
    features, folds = chance.random((count, 2)), np.arange(count) % FOLDS
    labels = Labels(("digits", "punctuation"), features, {}, tuple(str(number % 9) for number in range(count)))
    losses = np.column_stack([features[:, 0] * chance.random(count), np.zeros(count)])
    others = losses.copy()
    others[folds == 0, 0] = 5 * chance.random(np.count_nonzero(folds == 0))

    predicted = [nested(Ridge(), labels, {"low": table[:, 0]}, folds, 0) for table in (losses, others)]
    families = [
        stacked(Stages(part, part[:, ::-1]), np.full(count, 0.2), folds, COSTS, table)
        for part, table in zip(predicted, (losses, others), strict=True)
    ]

    assert (predicted[0][0] == predicted[1][0]).all()
    assert (predicted[0][1] != predicted[1][1]).any()
    chosen = [{tuple(column) for column in family.costs[folds == 0].T.tolist()} for family in families]
    assert len(chosen[0]) > 5
    assert chosen[0] == chosen[1]
