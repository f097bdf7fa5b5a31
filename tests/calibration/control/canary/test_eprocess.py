"""calibration/control/canary/eprocess.py and power.py against known answers: errors stay below alpha at every look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mapie.exchangeability_testing.bounds import conjugate_mixture_empirical_bernstein_bound
from scipy.stats import binom

from calibration.control.canary.eprocess import Decision, decide, interval, log_capitals, turned_worse
from calibration.control.canary.power import PASS_AT_1, Assumed, fixed_sample_pairs, simulate_power

ALPHA, REPLAYS = 0.05, 2000


def three_valued(mean: float, shape: tuple[int, int], seed: int = 1) -> np.ndarray:
    return Assumed(difference=mean, discordance=0.4, size=0.5).draw(shape, np.random.default_rng(seed))


@pytest.mark.parametrize("wrong", [Decision.WORSE, Decision.FINE])
def test_at_the_margin_itself_each_error_stays_below_alpha_though_every_pair_is_looked_at(wrong: Decision) -> None:
    margin = 0.02
    ends = [decide(row, margin, ALPHA)[0] for row in three_valued(margin, (REPLAYS, 300))]

    errors = sum(end is wrong for end in ends)
    assert errors <= binom.ppf(0.999, REPLAYS, ALPHA)
    assert errors <= ALPHA * REPLAYS  # Ville's bound is not met exactly: no bet is made after the end


def test_a_capital_is_worth_one_on_average_under_its_hypothesis() -> None:
    rows = three_valued(0.02, (REPLAYS, 50), seed=2)

    for which in (0, 1):
        capitals = np.exp([log_capitals(row, 0.02)[which][-1] for row in rows])
        assert abs(capitals.mean() - 1) < 4 * capitals.std() / math.sqrt(REPLAYS)


def test_what_is_worse_is_found_and_what_is_not_is_let_through_soon() -> None:
    worse = [decide(row, 0.02, ALPHA) for row in three_valued(0.12, (100, 600))]
    same = [decide(row, 0.05, ALPHA) for row in three_valued(0.0, (100, 1000))]

    assert sum(end is Decision.WORSE for end, _ in worse) >= 99
    assert sum(end is Decision.FINE for end, _ in same) >= 90
    assert np.median([count for _, count in worse]) < 150


def test_the_interval_covers_the_mean_at_every_look_and_is_as_narrow_as_mapies() -> None:
    rows = three_valued(0.05, (60, 400), seed=3)
    intervals = [interval(row, ALPHA) for row in rows]

    assert sum(low <= 0.05 <= high for low, high in intervals) >= 57
    for row, (low, high) in zip(rows[:5], intervals, strict=False):
        scaled = (row + 1) / 2  # mapie's is for losses between 0 and 1, at half of its alpha on each side
        sides = [
            2 * conjugate_mixture_empirical_bernstein_bound(scaled, v_opt=10, alpha=ALPHA, bound_side=side)[-1] - 1
            for side in ("lower", "upper")
        ]
        assert sides[0] < row.mean() < sides[1]
        assert low < row.mean() < high
        assert high - low < (sides[1] - sides[0]) * 1.1


def test_a_candidate_that_turns_bad_after_a_long_time_is_found_soon_and_one_at_the_margin_seldom() -> None:
    rows = three_valued(0.02, (200, 150), seed=5)
    wrong = sum(turned_worse(row, 0.02, ALPHA) is not None for row in rows)
    assert wrong <= ALPHA * len(rows)

    for before in (0, 100, 2000):
        fine = three_valued(0.0, (1, before), seed=6)[0]
        count = turned_worse(np.concatenate([fine, np.ones(60)]), 0.02, ALPHA)
        assert count is not None
        assert 0 < count - before <= 30
        assert turned_worse(fine, 0.02, ALPHA) is None


def test_a_candidate_that_fails_each_time_is_found_after_a_few_pairs() -> None:
    assert decide(np.ones(40), 0.02, ALPHA)[0] is Decision.WORSE
    assert decide(np.ones(40), 0.02, ALPHA)[1] <= 9
    assert decide(np.zeros(0), 0.02, ALPHA) == (Decision.UNDECIDED, 0)
    with pytest.raises(ValueError, match=r"differences must be between -1 and 1, got 2 to 2"):
        decide(np.array([2.0]), 0.02, ALPHA)
    with pytest.raises(ValueError, match=r"margin must be between -1 and 1"):
        decide(np.zeros(1), 1.0, ALPHA)


def test_the_power_is_stated_before_and_pass_at_1_has_none() -> None:
    assert fixed_sample_pairs(*PASS_AT_1) == 6271
    powers = {
        difference: simulate_power(
            Assumed(difference=difference), margin=0.02, alpha=ALPHA, max_pairs=1500, replays=60, seed=4
        )
        for difference in (0.0, 0.05)
    }

    assert powers[0.0].shares["worse"] <= ALPHA
    assert powers[0.05].shares["worse"] > 0.95
    assert powers[0.05].median_pairs is not None
    assert powers[0.05].median_pairs < 600
    assert sum(powers[0.0].shares.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"needs more than 1% of the pairs to differ"):
        simulate_power(Assumed(difference=0.1, discordance=0.01), margin=0.02, alpha=ALPHA, max_pairs=10)
