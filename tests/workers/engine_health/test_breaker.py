"""workers/engine_health/breaker.py: when an engine is left alone, and for how long."""

from __future__ import annotations

import pytest

from workers.engine_health.breaker import FIRST_PAUSE_S, MAX_FAILURES, MAX_PAUSE_S, WINDOW_S, Breaker, BreakerState


def failed(breaker: Breaker, *times: float) -> list[float]:
    return [breaker.failed(at) for at in times]


def test_failures_close_together_open_it_and_the_pause_ends_in_half_open() -> None:
    breaker = Breaker()

    assert failed(breaker, *range(MAX_FAILURES)) == [0] * (MAX_FAILURES - 1) + [FIRST_PAUSE_S]

    last = MAX_FAILURES - 1
    assert breaker.state(last) is BreakerState.OPEN
    assert breaker.state(last + FIRST_PAUSE_S - 0.1) is BreakerState.OPEN
    assert breaker.state(last + FIRST_PAUSE_S) is BreakerState.HALF_OPEN


def test_failures_far_apart_leave_it_closed() -> None:
    breaker = Breaker()

    assert failed(breaker, *(at * WINDOW_S * 0.6 for at in range(10))) == [0.0] * 10
    assert breaker.state(WINDOW_S * 6) is BreakerState.CLOSED


def test_a_failed_try_doubles_the_pause_up_to_its_bound() -> None:
    breaker = Breaker()
    failed(breaker, *([0.0] * MAX_FAILURES))

    pauses = failed(breaker, *range(10, 20))

    assert pauses[:3] == [FIRST_PAUSE_S * 2, FIRST_PAUSE_S * 4, FIRST_PAUSE_S * 8]
    assert max(pauses) == MAX_PAUSE_S


@pytest.mark.parametrize(("later_s", "pause_s"), [(1.0, FIRST_PAUSE_S * 2), (WINDOW_S + 10, 0.0)])
def test_once_closed_it_opens_at_the_next_failure_unless_that_comes_late(later_s: float, pause_s: float) -> None:
    breaker = Breaker()
    failed(breaker, *([0.0] * MAX_FAILURES))
    breaker.passed()
    assert breaker.state(0.0) is BreakerState.CLOSED

    assert breaker.failed(later_s) == pause_s
