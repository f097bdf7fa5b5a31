"""Curves and what is read from them, against examples by hand and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.control.ablation.cost_curves import Curves, at_random, by_limit, cascade, curves, oracle

Numbers = NDArray[np.float64]
TWO = np.array([1.0, 3.0])
FOUR = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
ONCE = np.ones((1, 4))


def once(family_losses: Numbers) -> Numbers:
    return np.ones((1, len(family_losses)))


def area_share(scores: Numbers, losses: Numbers, costs: Numbers = TWO) -> float:
    weights = once(losses)
    areas = [
        curves(family, weights).area()[0]
        for family in (at_random(costs, losses), by_limit(scores, costs, losses), oracle(costs, losses))
    ]
    return float((areas[0] - areas[1]) / (areas[0] - areas[2]))


def test_the_oracle_spends_first_where_most_is_lost() -> None:
    shown = curves(oracle(TWO, FOUR), ONCE)

    assert shown.costs[0] == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0, 3.0])
    assert shown.losses[0] == pytest.approx([2.5, 1.5, 0.75, 0.25, 0.0, 0.0])
    assert shown.area() == pytest.approx([0.9375])


def test_random_shares_are_the_straight_line_between_two_tiers() -> None:
    shown = curves(at_random(TWO, FOUR), ONCE)

    assert shown.at_cost(np.array([1.5])) == pytest.approx([1.875])
    assert shown.area() == pytest.approx([1.25])
    assert shown.cost_at(np.array([1.25])) == pytest.approx([2.0])


def test_a_perfect_score_has_the_oracle_s_area_a_reversed_one_its_negative_and_a_constant_one_none() -> None:
    losses = FOUR[:, :1]

    assert area_share(losses, FOUR) == pytest.approx(1.0)
    assert area_share(-losses, FOUR) == pytest.approx(-1.0)
    assert area_share(np.zeros((4, 1)), FOUR) == pytest.approx(0.0)


def test_areas_of_losses_that_are_uniform_are_those_of_the_integral() -> None:
    losses = np.column_stack([(np.arange(5000) + 0.5) / 5000, np.zeros(5000)])
    weights = once(losses)

    assert curves(at_random(TWO, losses), weights).area() == pytest.approx([1 / 4], abs=1e-3)
    assert curves(oracle(TWO, losses), weights).area() == pytest.approx([1 / 6], abs=1e-3)  # of (1 - x)^2 / 2


def test_half_of_a_score_that_says_nothing_halves_the_area() -> None:
    chance = np.random.default_rng(1)
    losses = np.column_stack([chance.random(20_000), np.zeros(20_000)])
    # Spearman's correlation of a perfect score on half of the labels: the area follows the rank of the score.
    known = np.where(chance.random(20_000) < 0.5, losses[:, 0], chance.random(20_000))

    assert area_share(known[:, None], losses) == pytest.approx(0.5, abs=0.03)


def test_random_shares_leave_out_a_tier_that_a_mixture_of_others_beats() -> None:
    costs = np.array([1.0, 2.0, 3.0])
    losses = np.tile([[1.0, 0.8, 0.0]], (3, 1))

    shown = curves(at_random(costs, losses), np.ones((1, 3)))

    assert shown.costs[0].tolist() == [1.0, 3.0]
    losses[:, 1] = 0.1
    assert curves(at_random(costs, losses), np.ones((1, 3))).costs[0].tolist() == [1.0, 2.0, 3.0]


def test_the_oracle_of_three_tiers_takes_the_middle_one_where_the_top_saves_no_more() -> None:
    costs, losses = np.array([1.0, 2.0, 4.0]), np.array([[1.0, 0.0, 0.0], [1.0, 0.9, 0.0], [0.0, 0.5, 0.0]])

    family = oracle(costs, losses)

    assert family.choices[0, 1] == 1  # saves 1 for 1
    assert family.choices[:, -1].tolist() == [1, 2, 0]
    assert curves(family, np.ones((1, 3))).losses[0, -1] == 0.0


def test_the_oracle_never_pays_for_a_loss() -> None:
    losses = np.array([[1.0, 0.0], [-1.0, 0.0]])  # the lowest tier is right where the top is wrong

    shown = curves(oracle(TWO, losses), np.ones((1, 2)))

    assert shown.losses[0].tolist() == [0.0, -0.5, -0.5]
    assert shown.costs[0].tolist() == [1.0, 2.0, 3.0]


def test_a_policy_goes_from_all_on_the_lowest_tier_to_all_on_the_top() -> None:
    chance = np.random.default_rng(2)
    bounds, losses = chance.random((500, 2)), np.hstack([chance.random((500, 2)), np.zeros((500, 1))])

    family = by_limit(bounds, np.array([1.0, 2.0, 4.0]), losses)

    assert (family.choices[:, 0] == 0).all()
    assert (family.choices[:, -1] == 2).all()
    assert (np.diff(family.costs, axis=1) >= 0).all()


def test_a_cascade_pays_for_both_answers_and_ends_in_the_line_to_all_on_the_top() -> None:
    costs, losses = np.array([0.2, 1.0]), np.array([[4.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])

    shown = curves(cascade(losses[:, 0], np.ones(4), costs, losses), ONCE)

    assert shown.costs[0] == pytest.approx([0.2, 0.2, 0.45, 1.0])
    assert shown.losses[0] == pytest.approx([1.0, 1.0, 0.0, 0.0])


def test_an_early_cascade_pays_for_what_was_written_and_for_the_whole_higher_answer() -> None:
    costs, losses = np.array([0.2, 1.0]), np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    spent = np.array([0.25, 0.5, 0.1, 0.1])

    family = cascade(losses[:, 0], spent, costs, losses)

    assert family.costs[:, 2].tolist() == pytest.approx([1.05, 0.2, 0.2, 0.2])
    assert family.costs[:, 3].tolist() == pytest.approx([1.05, 1.1, 0.2, 0.2])
    assert curves(family, ONCE).losses[0] == pytest.approx([1.5, 1.5, 0.5, 0.0, 0.0])


def test_a_loss_that_no_setting_comes_down_to_has_no_cost() -> None:
    shown = Curves(np.array([[1.0, 2.0]]), np.array([[3.0, 1.0]]))

    assert np.isnan(shown.cost_at(np.array([0.5]))).all()
    assert shown.cost_at(np.array([5.0])).tolist() == [1.0]
    assert shown.cost_at(np.array([2.0])).tolist() == [1.5]


def test_weights_are_the_same_as_labels_that_stand_there_so_often() -> None:
    losses = FOUR[[0, 0, 0, 2]]
    weighted = curves(by_limit(FOUR[:, :1], TWO, FOUR), np.array([[3.0, 0.0, 1.0, 0.0]]))

    assert weighted.area() == pytest.approx(curves(by_limit(losses[:, :1], TWO, losses), ONCE).area())
