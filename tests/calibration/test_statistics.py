"""Intervals and tests against values that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.statistics import (
    Floats,
    beyond_chance,
    bootstrap,
    bootstrap_mean,
    bootstrap_quantile,
    chance_of,
    mcnemar,
    newcombe,
    paired_difference,
    paired_ratio,
    wilson,
)


def mean(total: Floats, count: Floats) -> Floats:
    return total / count


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [  # R: prop.test(right, count, correct = FALSE)
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (15, 164, 0.0562, 0.1454),
    ],
)
def test_wilson_s_interval_is_the_one_of_the_tables(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("right", "count", "other_right", "other_count", "low", "high"),
    [  # Newcombe 1998, table II, method 10
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (10, 10, 0, 10, 0.6075, 1.0),
    ],
)
def test_newcombe_s_interval_of_a_difference_is_the_one_of_his_table(
    right: int, count: int, other_right: int, other_count: int, low: float, high: float
) -> None:
    interval = newcombe(right / count, count, other_right / other_count, other_count)

    assert interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("share", "base", "correlated"), [(0.05, 0.1, 0.5), (0.3, 0.4, 0.5), (0.9, 0.95, 0.9), (0.5, 0.5, 0.0)]
)
def test_intervals_of_two_paired_shares_cover_the_truth_about_as_often_as_they_say(
    share: float, base: float, correlated: float
) -> None:
    random, count = np.random.default_rng(7), 40
    covered = np.zeros(2)
    trials = 0
    while trials < 500:
        same = random.random(count) < correlated
        ours = random.random(count)
        first, second = ours < share, np.where(same, ours, random.random(count)) < base
        if not second.any():
            continue
        trials += 1
        better, worse = int((first & ~second).sum()), int((second & ~first).sum())
        low, high = paired_difference(better, worse, count)
        ratio_low, ratio_high = paired_ratio(int((first & second).sum()), better, worse)
        covered += [low <= share - base <= high, ratio_low <= share / base <= ratio_high]

    assert (covered >= 0.9 * trials).all(), covered / trials


@pytest.mark.parametrize(
    ("both", "better", "worse", "low", "high"),
    [(1, 1, 7, 0.068, 0.923), (59, 6, 16, 0.758, 0.991)],  # tables of Bentur 2009, Cavo 2012
)
def test_the_interval_of_a_paired_ratio_is_the_one_of_bonett_and_price(
    both: int, better: int, worse: int, low: float, high: float
) -> None:
    assert paired_ratio(both, better, worse) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(("both", "better", "worse"), [(0, 0, 1), (1, 0, 0), (0, 3, 1), (20, 0, 0), (0, 0, 20)])
def test_intervals_of_few_counts_have_a_width_and_hold_what_was_seen(both: int, better: int, worse: int) -> None:
    low, high = paired_ratio(both, better, worse)
    less, more = paired_difference(better, worse, 20)

    assert low <= (both + better) / (both + worse) <= high
    assert high - low > 0.1
    assert less <= (better - worse) / 20 <= more
    assert more - less > 0.1


def test_none_of_twenty_against_one_may_be_chance() -> None:
    low, high = paired_ratio(0, 0, 1)

    assert low == 0
    assert high > 1


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (0, 6, 2 / 64)],  # binom.test(b, b + c)
)
def test_mcnemar_s_exact_p_is_the_binomial_one(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == pytest.approx(p)


def test_the_bootstrap_of_a_mean_is_close_to_what_theory_says() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    units = np.stack([values, np.ones(400)], axis=1)

    low, high = bootstrap(units, mean)

    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_of_many_the_interval_of_a_mean_is_that_of_a_few_more_than_are_resampled() -> None:
    values = np.random.default_rng(5).exponential(size=5001)

    assert bootstrap_mean(values) == pytest.approx(bootstrap_mean(values[:5000]), abs=0.002)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        units = np.stack([random.normal(0, 1, 60), np.ones(60)], axis=1)
        low, high = bootstrap(units, mean)
        covered += low <= 0 <= high

    assert 87 <= covered <= 100


@pytest.mark.parametrize("count", [4, 6, 10])
def test_the_bootstrap_of_few_passages_covers_the_truth_too(count: int) -> None:
    random = np.random.default_rng(8)
    covered = 0
    for _ in range(200):
        low, high = bootstrap(np.stack([random.normal(0, 1, count), np.ones(count)], axis=1), mean)
        covered += low <= 0 <= high

    assert covered >= 176


def test_whole_rows_are_drawn_so_that_a_comparison_is_paired() -> None:
    base = np.random.default_rng(3).normal(0, 10, 200)
    units = np.stack([base + 1, base, np.ones(200)], axis=1)

    low, high = bootstrap(units, lambda own, its, count: (own - its) / count)

    assert (low, high) == pytest.approx((1, 1))


def test_tokens_of_one_passage_are_not_independent() -> None:
    """Twenty passages of fifty equal tokens are twenty observations, not a thousand."""
    passages = np.random.default_rng(4).normal(0, 1, 20)
    as_passages = np.stack([passages * 50, np.full(20, 50.0)], axis=1)
    as_tokens = np.stack([np.repeat(passages, 50), np.ones(1000)], axis=1)

    wide, narrow = bootstrap(as_passages, mean), bootstrap(as_tokens, mean)

    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])


def test_the_same_data_give_the_same_interval() -> None:
    units = np.stack([np.arange(30.0), np.ones(30)], axis=1)

    assert bootstrap(units, mean) == bootstrap(units, mean)


def test_resamples_with_nothing_to_divide_by_are_left_out() -> None:
    some, none = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), np.zeros((3, 2))

    low, high = bootstrap(some, mean)

    assert 0 <= low <= high < math.inf
    assert all(math.isnan(end) for end in bootstrap(none, mean))


def test_the_interval_of_a_quantile_lies_around_it() -> None:
    values = np.arange(1000.0)

    low, high = bootstrap_quantile(values[:, None], 0.5)

    assert low < 500 < high
    assert high - low == pytest.approx(62, abs=15)  # 2 * 1.96 * sqrt(1000 / 4)


def test_of_many_comparisons_those_are_beyond_chance_that_hold_against_all_others() -> None:
    assert beyond_chance({"one": 0.02}, 0.025) == {"one"}
    assert beyond_chance({"a": 0.02, "b": 0.5, "c": 0.5}, 0.025) == set()
    assert beyond_chance({"a": 0.001, "b": 0.012, "c": 0.5}, 0.025) == {"a", "b"}
    assert beyond_chance({}, 0.025) == set()


def test_the_chance_of_a_difference_follows_its_interval() -> None:
    assert chance_of(0.1, 0.1) == pytest.approx(0.025)
    assert chance_of(0, 0.1) == pytest.approx(0.5)
    assert chance_of(0.1, 0) == 1, "an interval without a width is of one row, which proves nothing"
