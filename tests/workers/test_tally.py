"""What a worker reports of the last seconds."""

from __future__ import annotations

import time

import pytest

from bitladder.contract import Outcome, State, Usage
from workers.tally import Tally


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(tally: Tally, clock: Clock, seconds: int, origin: str | None = None) -> None:
    """End a job of 20 tokens in each second, and report after each, as a worker does."""
    for _ in range(seconds):
        clock.now_s += 1
        usage = Usage(prompt_tokens=5, completion_tokens=20)
        tally.add(Outcome(state=State.FINISHED, status=200, usage=usage, overflowed_from=origin))
        tally.report(16)


def test_rates_are_those_of_ten_seconds_and_overflow_that_of_a_minute(clock: Clock) -> None:
    tally = Tally()
    run(tally, clock, 100, origin="int4")
    clock.now_s += 5

    report = tally.report(16)

    assert (report.jobs, report.tokens, report.overflow) == (100, 2000, {"int4": 100})
    assert (report.jobs_per_s, report.tokens_per_s) == (0.5, 10.0)
    assert report.overflow_in == {"int4": 55}


def test_after_a_minute_without_jobs_all_rates_are_nothing(clock: Clock) -> None:
    tally = Tally()
    run(tally, clock, 10, origin="int4")
    for _ in range(61):
        clock.now_s += 1
        report = tally.report(16)

    assert (report.jobs, report.jobs_per_s, report.overflow_in) == (10, 0.0, {})


def test_lost_jobs_are_those_of_ten_minutes(clock: Clock) -> None:
    tally = Tally()
    tally.add_lost(3)
    clock.now_s += 599
    tally.add_lost()
    assert tally.report(16).lost == 4
    clock.now_s += 2

    assert tally.report(16).lost == 1
