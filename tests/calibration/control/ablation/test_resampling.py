"""Folds, and whether intervals hold what they say: on draws from a law that is known."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.control.ablation import cost_curves, resampling
from calibration.control.ablation.cost_curves import at_random, by_limit, curves, oracle
from calibration.control.ablation.resampling import SOURCE_FOLDS, Resamples, source_folds

COSTS = np.array([1.0, 3.0])
DRAWS, TRUE_AREA = 40, 0.5


def test_a_source_is_in_one_fold_alone_and_folds_are_of_like_size() -> None:
    sources = [f"s{number}" for number in range(97) for _ in range(1 + number % 7)]

    folds = source_folds(sources, seed=0)

    assert folds is not None
    by_source = {source: {int(fold) for name, fold in zip(sources, folds, strict=True) if name == source}
                 for source in sources}  # fmt: skip
    assert all(len(where) == 1 for where in by_source.values())
    sizes = np.bincount(folds)
    assert len(sizes) == SOURCE_FOLDS
    assert sizes.max() - sizes.min() <= 7


def test_one_source_has_no_folds_and_two_have_two() -> None:
    assert source_folds(["a"] * 9, seed=0) is None
    assert sorted(set(source_folds(["a", "b", "b"], seed=0))) == [0, 1]  # type: ignore[arg-type]


def _covered(spread_of_sources: float, sources: int, of_each: int) -> tuple[int, int]:
    """Return how many intervals hold the true area share, by prompt and by source.

    The score is the loss itself on a half of the labels, which is a half of the oracle's area on average; with a
    spread, that share differs from source to source.
    """
    chance = np.random.default_rng(20261130)
    hits = np.zeros(2, int)
    for seed in range(DRAWS):
        names = np.repeat(np.arange(sources), of_each)
        known = np.clip(0.5 + spread_of_sources * chance.choice([-1.0, 1.0], sources), 0, 1)[names]
        losses = np.column_stack([chance.random(len(names)), np.zeros(len(names))])
        scores = np.where(chance.random(len(names)) < known, losses[:, 0], chance.random(len(names)))
        resamples = Resamples([str(name) for name in names], 100, seed)
        areas = [
            curves(family, resamples.weights).area()
            for family in (at_random(COSTS, losses), by_limit(scores[:, None], COSTS, losses), oracle(COSTS, losses))
        ]
        figure = resamples.estimate((areas[0] - areas[1]) / (areas[0] - areas[2]))
        assert figure is not None
        for place, name in enumerate(("by_prompt", "by_source")):
            low, high = figure[name]
            hits[place] += low <= TRUE_AREA <= high
    return int(hits[0]), int(hits[1])


@pytest.fixture
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_curves, "STEPS", 20)


@pytest.mark.usefixtures("few_settings")
def test_bands_hold_the_true_area_as_often_as_they_say() -> None:
    by_prompt, by_source = _covered(spread_of_sources=0.0, sources=50, of_each=4)

    # A true 95 % has fewer than 32 of 40 in 1 of 10,000.
    assert by_prompt >= 32
    assert by_source >= 32


@pytest.mark.usefixtures("few_settings")
def test_bands_by_source_hold_it_where_sources_differ_and_bands_by_prompt_do_not() -> None:
    by_prompt, by_source = _covered(spread_of_sources=0.4, sources=24, of_each=8)

    assert by_source >= 32
    assert by_prompt < by_source


def test_labels_that_come_again_make_no_interval_narrower() -> None:
    losses = np.random.default_rng(1).random(40)
    sources, groups = ["a", "b"] * 20, [str(number) for number in range(40)]
    once, again = (Resamples(sources * times, 200, 0, groups * times) for times in (1, 9))

    figures = [
        resamples.estimate(resamples.weights @ np.tile(losses, times) / resamples.weights.sum(axis=1))
        for resamples, times in ((once, 1), (again, 9))
    ]

    assert figures[0] == figures[1]


def test_what_is_not_there_is_no_figure() -> None:
    resamples = Resamples(["a", "b"] * 20, 50, 0)

    assert resamples.estimate(np.full(len(resamples.weights), np.nan)) is None
    one = Resamples(["a"] * 20, 50, 0)
    assert one.estimate(np.ones(len(one.weights))) == {"value": 1.0, "by_prompt": [1.0, 1.0], "by_source": None}


def test_resamples_are_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_MAX_WEIGHTS", 10_000)

    assert Resamples(["a", "b"] * 50, 1000, 0).count == 50
    assert Resamples(["a", "b"] * 500, 1000, 0).count == 20
