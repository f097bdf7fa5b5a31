"""Frontiers over load and price."""

from __future__ import annotations

import pytest

from calibration.errors import InputError
from calibration.simulation.planning.frontiers import follow, read_frontier
from calibration.simulation.planning.make_plan import market_of
from tests.calibration.simulation.planning.questions import question_of, requests_of

DEVICES = ["small", "large"]


def test_the_break_even_is_the_price_at_which_small_workers_are_as_cheap() -> None:
    # 13 requests a second: five small ones for 3.50, or one large one.
    market = market_of(question_of(requests_of("poisson:rate=13", count=4000)))
    assert market.question.demand.per_s == pytest.approx(13, rel=0.05)

    found = follow(market, read_frontier("price:large=1..8", DEVICES), lambda *_: None)

    assert found["break_even"]["price"] == pytest.approx(3.5, rel=0.01)
    prices = [point["price_per_hour"] for point in found["points"]]
    assert prices == sorted(prices)
    assert prices[-1] == pytest.approx(3.5)
    assert [point["tier_shares"]["int4"] for point in (found["points"][0], found["points"][-1])] == [0, 1]


def test_more_load_costs_more_and_a_request_of_it_less() -> None:
    market = market_of(question_of(requests_of()))

    found = follow(market, read_frontier("load=10,0.1,1,30", DEVICES), lambda *_: None)

    points = found["points"]
    assert [point["value"] for point in points] == [0.1, 1, 10, 30]
    costs = [point["price_per_hour"] for point in points]
    assert costs == sorted(costs)
    assert points[-1]["per_1000_requests"] < points[0]["per_1000_requests"]
    assert found["as_good_at"]["small"] == [0.1, 1]


def test_where_one_device_is_always_or_never_as_good_it_is_said() -> None:
    market = market_of(question_of(requests_of("poisson:rate=13", count=4000)))

    cheap = follow(market, read_frontier("price:large=1,2", DEVICES), lambda *_: None)
    dear = follow(market, read_frontier("price:large=5,6", DEVICES), lambda *_: None)

    assert cheap["break_even"] == {"price": None, "reason": "only large is as cheap as any mix, up to 2"}
    assert dear["break_even"] == {"price": None, "reason": "a mix is cheaper at 5 already"}


@pytest.mark.parametrize(
    "spec",
    ["load", "price=1", "price:b200=1,2", "load=0,1", "load=2..1", "load=1..2/1", "load=a", "load=1..2/999", "load=-1"],
)
def test_a_frontier_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match="--frontier"):
        read_frontier(spec, DEVICES)


def test_a_range_of_loads_is_by_ratio_and_one_of_prices_by_steps() -> None:
    assert read_frontier("load=1..16/3", DEVICES).values == pytest.approx((1, 4, 16))
    assert read_frontier("price:large=1..3/3", DEVICES).values == pytest.approx((1, 2, 3))
    assert len(read_frontier("load=0.1..10", DEVICES).values) == 13
