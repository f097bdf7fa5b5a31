"""bitladder/routing/wait_errors.py: the measured error of forecasts, and the interval that it gives."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.routing.forecast import forecast
from bitladder.routing.rates import TierRates
from bitladder.routing.wait_errors import WaitErrors
from tests.bitladder.routing.test_forecast import NORMAL, reading

waits = st.floats(0, 1e5, allow_nan=False)


@given(pairs=st.lists(st.tuples(waits, waits), max_size=300), forecast_s=waits)
def test_an_interval_is_in_order_and_never_negative(pairs: list[tuple[float, float]], forecast_s: float) -> None:
    errors = WaitErrors()
    for pair in pairs:
        errors.add(*pair)

    expected = errors.expect(forecast_s)

    assert 0 <= expected.low_ms <= expected.wait_ms <= expected.high_ms
    assert (errors.median_error is None) == (len(pairs) < 8)


def test_without_enough_forecasts_a_wait_may_be_half_or_twice_of_what_is_expected() -> None:
    expected = WaitErrors().expect(10)

    assert [expected.low_ms, expected.wait_ms, expected.high_ms] == pytest.approx([5000, 10000, 20000], rel=0.01)


def test_forecasts_that_are_always_half_too_short_are_doubled() -> None:
    errors = WaitErrors()
    for real_s in range(4, 40):
        errors.add(real_s / 2, real_s)

    expected = errors.expect(5)

    assert expected.wait_ms == pytest.approx(10_000, rel=0.02)
    assert expected.low_ms == pytest.approx(expected.high_ms, rel=0.02)


@pytest.mark.parametrize(("slots", "job_s"), [(16, 0.5), (4, 2), (64, 3)])
def test_on_a_steady_load_the_median_error_is_below_a_tenth_and_most_waits_are_in_their_interval(
    slots: int, job_s: float
) -> None:
    """A tier that is as busy as it can be: its backlog goes up and down, as random arrivals do."""
    chance, rates, errors = random.Random(5), TierRates(), WaitErrors()  # noqa: S311
    running = sorted(chance.uniform(0, job_s) for _ in range(slots))
    waiting: deque[tuple[float, float | None]] = deque([(0.0, None)] * 6 * slots)  # arrived, forecast
    served, admitted, within, judged, load = 0, 0, 0, 0, None
    now, read_s, next_s = 0.0, 0.0, 0.0
    while now < 200 + 40 * job_s:
        now += chance.expovariate(slots / job_s)
        while running and running[0] <= now:
            ended, served = heapq.heappop(running), served + 1
            if waiting:
                at, found = waiting.popleft()
                heapq.heappush(running, ended + job_s * chance.uniform(0.5, 1.5))
                if found is not None:
                    expected = errors.expect(found)
                    within += expected.low_ms <= 1000 * (ended - at) <= expected.high_ms
                    judged += 1
                    errors.add(found, ended - at)
        while read_s <= now:
            load = rates.add(reading(read_s, len(waiting), served, len(running), slots=slots), (0, admitted, 0))
            admitted, read_s = 0, read_s + 1
        is_next = load is not None and now >= next_s
        shown = forecast(load, NORMAL, (0, admitted, 0), now - read_s + 1) if load and is_next else None
        next_s = now + 0.25 if is_next else next_s
        waiting.append((now, shown.wait_s if shown else None))
        admitted += 1

    assert judged > 300
    assert errors.median_error is not None
    assert errors.median_error < 0.1
    assert within / judged > 0.7
