"""PSI against values by hand, and thresholds whose level is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.control.drift.stability_index import Bins, bin_edges, binned, psi, tail_by_permutation
from tests.calibration.control.drift.streams import features


def test_the_index_is_the_value_by_hand() -> None:
    by_hand = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)

    assert psi(np.array([10, 10]), np.array([100, 300])) == pytest.approx(by_hand)
    assert psi(np.array([30, 70]), np.array([300, 700])) == 0
    assert psi(np.array([0, 20]), np.array([10, 10])) == pytest.approx(
        (0.025 - 0.5) * math.log(0.025 / 0.5) + (1 - 0.5) * math.log(1 / 0.5)
    )  # an empty bin counts as half of one


def test_bins_are_deciles_and_equal_values_share_one() -> None:
    assert list(bin_edges(np.arange(1, 101.0))) == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    flags = np.array([0.0] * 60 + [1.0] * 40)
    assert list(bin_edges(flags)) == [0]
    assert list(np.bincount(binned(flags, bin_edges(flags)))) == [60, 40]
    assert len(bin_edges(np.zeros(5))) == 0


def test_any_of_many_features_passes_its_threshold_as_often_as_the_level_says() -> None:
    random, level, window = np.random.default_rng(7), 0.1, 250
    reference = features(random, 1000)
    reference = np.hstack([reference, reference[:, :2], np.round(features(random, 1000), 1)])  # some depend, some tie
    tail = tail_by_permutation(reference, window, level, 1000, seed=1)
    passed = 0
    for _ in range(150):
        fresh, other = features(random, 1000 + window), features(random, 1000 + window)
        table = np.hstack([fresh, fresh[:, :2], np.round(other, 1)])
        bins = Bins.of(table[:1000])
        passed += bool((bins.indices(table[1000:]) > bins.thresholds(window, tail)).any())

    # 15 are expected; a share of 10 % passes 5 to 27 times of 150 but in 1 of 500 tries.
    assert 5 <= passed <= 27
    assert tail < level / 4  # many features: each has less of the level


def test_too_few_permutations_for_a_level_are_refused() -> None:
    table = features(np.random.default_rng(0), 300)

    with pytest.raises(ValueError, match=r"100 permutations show no level of 0.001, expected at least 1000"):
        tail_by_permutation(table, 100, 0.001, 100, seed=0)
