"""Planned fleets in the simulation."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.simulation.planning.fleet_program import balanced
from calibration.simulation.planning.make_plan import make_plan, market_of
from calibration.simulation.planning.verify_plan import verify_plan
from tests.calibration.simulation.planning.questions import question_of, requests_of


def test_the_simulation_confirms_a_plan_for_the_peak() -> None:
    requests = requests_of(count=1500)
    market = market_of(question_of(requests, rate="peak", shares={"int4": 0.5, "fp8": 0.5}))
    fleet = make_plan(market)

    verified = verify_plan(market, fleet, requests, seed=0)

    assert verified.attainment >= 0.99
    assert verified.changes == []
    by_tier = {row["tier"]: row["floor_share"] for row in verified.figures["tiers"]}
    shares = market.share_by_kind(fleet)
    for kind, share, count in zip(market.kinds, shares, fleet.workers, strict=True):
        if count:
            assert by_tier[kind.name] == pytest.approx(share, abs=0.04)


def test_a_fleet_that_falls_short_grows_until_it_keeps_the_targets() -> None:
    requests = requests_of("bursts:rate=4,burst_rate=30,on_s=20,off_s=40", count=1500)
    market = market_of(question_of(requests, rate="mean"))
    fleet = make_plan(market)

    verified = verify_plan(market, fleet, requests, seed=0)

    assert verified.changes
    assert verified.attainment >= 0.99
    assert verified.fleet.price_per_hour > fleet.price_per_hour


def test_where_the_stock_is_used_up_the_miss_is_reported() -> None:
    requests = requests_of("bursts:rate=4,burst_rate=60,on_s=20,off_s=40", count=1500)
    market = market_of(question_of(requests, counts={"small": 4, "large": 0}))
    fleet = balanced(market.program.scaled(0.5), np.array([4, 0]))
    assert fleet is not None

    verified = verify_plan(market, fleet, requests, seed=0)

    assert not verified.keeps(0.99)
    assert verified.changes == []


def test_of_two_larger_fleets_the_cheaper_one_is_taken() -> None:
    # One large worker is planned, and too slow to begin: a small one more costs less than a second large one.
    requests = requests_of("poisson:rate=41", count=4000)
    market = market_of(question_of(requests))
    fleet = balanced(market.program, np.array([0, 1]))
    assert fleet is not None

    verified = verify_plan(market, fleet, requests, seed=0)

    assert verified.changes
    assert verified.keeps(0.99)
    assert verified.fleet.price_per_hour < 2 * 3.2
