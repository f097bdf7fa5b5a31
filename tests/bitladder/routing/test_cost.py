"""bitladder/routing/cost.py: expected costs, baselines and dominated tiers, as pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.routing.cost import (
    NO_PACES,
    Pace,
    Paces,
    TierSum,
    affordable,
    all_at,
    at_least,
    concurrency_of,
    cost_per_1k,
    dominated,
    expected_cost,
    saving,
)

LADDER = ("int4", "int8", "fp8")


def pace(engine_tokens_per_s: float, concurrency: int, tokens_per_job: float = 100) -> Pace:
    tokens, share_s = 10 * tokens_per_job, 10 * tokens_per_job / engine_tokens_per_s
    return Pace(jobs=10, tokens=tokens, share_s=share_s, run_s=share_s * concurrency)


def curve(*speeds: tuple[int, float], last: int = 1) -> Paces:
    return Paces({concurrency: pace(speed, concurrency) for concurrency, speed in speeds}, last)


def test_what_1000_tokens_cost_falls_with_the_load_that_the_price_is_shared_by() -> None:
    assert cost_per_1k(3.6, pace(100, 1)) == pytest.approx(0.01)
    assert cost_per_1k(3.6, pace(1000, 16)) == pytest.approx(0.001)


def test_the_expected_cost_is_that_of_the_load_as_it_was_last_and_of_an_answer_of_usual_length() -> None:
    paces = curve((1, 100), (16, 1000), last=32)

    assert expected_cost(3.6, paces, None) == pytest.approx(0.0001)
    assert expected_cost(3.6, paces, 10) == pytest.approx(0.00001)
    assert expected_cost(3.6, paces, 5000) == pytest.approx(0.0001)
    assert expected_cost(3.6, NO_PACES, None) is None
    assert expected_cost(0, NO_PACES, None) == 0


@pytest.mark.parametrize(
    ("costs", "bounds", "expected"),
    [
        ([1, 2, 3], (0, 2), (0, 1)),
        ([1, 2, 3], (1, 2), (1, 1)),
        ([3, 1, 2], (0, 2), (1, 2)),
        ([1, 3, 2], (0, 2), (0, 0)),
        ([3, 3, 3], (0, 2), None),
        ([None, 3, 1], (0, 2), (0, 0)),
        ([1, None, None], (0, 2), (0, 2)),
        ([3, None, None], (0, 2), None),
        ([3, None, None], (1, 2), None),
    ],
)
def test_a_maximum_cost_allows_the_lowest_tiers_in_a_row_that_keep_to_it(
    costs: list[float | None], bounds: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    assert affordable(at_least(costs), *bounds, max_cost=2) == expected


def test_the_lower_tier_is_dominated_only_where_the_higher_one_is_as_cheap_and_as_fast_at_every_load() -> None:
    prices = {"int4": 0.7, "int8": 1.0, "fp8": 3.2}
    # Alone int4 is the cheapest; in a full batch its weights are unpacked again and again.
    crossing = {"int4": curve((1, 100), (16, 300)), "int8": curve((1, 80), (16, 1000)), "fp8": curve((1, 100))}
    beaten = crossing | {"int4": curve((16, 300))}

    assert dominated(LADDER, prices, crossing) == {}
    assert dominated(LADDER, prices, beaten) == {"int4": "int8"}
    assert dominated(LADDER, prices, {}) == {}


def test_a_baseline_goes_by_what_the_tier_cost_then_else_by_what_it_costs_now() -> None:
    assert all_at(500, TierSum(cost=2, jobs=1, tokens=1000), 99) == 1
    assert all_at(500, TierSum(), 4) == 2
    assert all_at(500, TierSum(), None) is None
    assert saving(3, 1, 4) == 0.5
    assert saving(None, 1, 4) is None
    assert saving(3, 1, 0) is None


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_concurrency_is_a_power_of_two_within_the_slots_that_a_tier_can_have(run_s: float, share_s: float) -> None:
    concurrency = concurrency_of(run_s, share_s)

    assert 1 <= concurrency <= 4096
    assert math.log2(concurrency).is_integer()
