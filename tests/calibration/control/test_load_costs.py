"""What a request costs under a load, against queues that are solved on paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.control.load_costs import TierLoad, costs_at
from calibration.errors import InputError
from tests.calibration.simulation.fleets import curve_of, scenario_of

HOUR_S = 3600


def load_of(folder: Path, load_per_s: float, *, slots: int, times: dict[int, float], price: float = 36.0) -> TierLoad:
    tiers = [{"name": "low", "slots": slots, "price_per_hour": price}]
    scenario = scenario_of(folder, tiers, curve_of(times))
    model = scenario.settings.models["m"]
    # 101 tokens: the first at once, and 100 at the curve's speed.
    return costs_at(load_per_s, scenario.fleet, scenario.curves, model, (1, 101))["low"]


def test_one_slot_is_the_queue_m_m_1(tmp_path: Path) -> None:
    load = load_of(tmp_path, 0.6, slots=1, times={1: 0.01})

    assert load.busy == pytest.approx(0.6)  # a job takes a second
    assert load.cost == pytest.approx(36 / HOUR_S)
    assert load.concurrency == pytest.approx(1.0)
    assert load.most_per_s == pytest.approx(1.0)


def test_slots_that_do_not_slow_each_other_down_are_erlang_s_queue(tmp_path: Path) -> None:
    load = load_of(tmp_path, 1.0, slots=2, times={1: 0.01, 2: 0.01})

    # M/M/2 at a load of 1 erlang is empty in 1/3 of the time.
    assert load.busy == pytest.approx(2 / 3)
    assert load.cost == pytest.approx(2 / 3 * 36 / HOUR_S)


def test_thousands_of_slots_are_no_too_large_number(tmp_path: Path) -> None:
    load = load_of(tmp_path, 1000.0, slots=4096, times={1: 0.01, 4096: 0.01})

    assert load.busy == pytest.approx(1)
    assert load.concurrency == pytest.approx(1000, rel=0.01)  # Little's law: a job takes a second


def test_a_request_is_cheaper_under_more_load_and_a_load_beyond_the_slots_is_refused(tmp_path: Path) -> None:
    times = {1: 0.01, 2: 0.012, 4: 0.016}
    costs = [load_of(tmp_path, rate, slots=4, times=times).cost for rate in (0.01, 0.5, 1.5, 2.4)]

    assert costs == sorted(costs, reverse=True)
    with pytest.raises(InputError, match=r"tier low holds 2\.5 requests a second at most, with 1 workers of 4"):
        load_of(tmp_path, 2.5, slots=4, times=times)
    with pytest.raises(InputError, match="tier low has no price_per_hour in bitladder"):
        load_of(tmp_path, 1.0, slots=4, times=times, price=0)
