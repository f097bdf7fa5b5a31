"""workers/clock.py: what the server's clock shows, between two of its answers."""

from __future__ import annotations

import time

import pytest

from workers.clock import ServerClock

FAR_MS = 1_800_000_000_000


def test_an_answer_that_was_read_late_does_not_set_the_clock_back() -> None:
    clock = ServerClock()
    clock.observe(FAR_MS, time.monotonic())

    # Asked a second ago, answered at once, and read only now: this process stood still.
    clock.observe(FAR_MS - 1000, time.monotonic() - 1.001)

    assert clock.seconds_until(FAR_MS + 150) == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_a_server_s_clock_that_was_set_is_followed(jump_ms: int) -> None:
    clock = ServerClock()
    clock.observe(FAR_MS, time.monotonic())

    clock.observe(FAR_MS + jump_ms, time.monotonic())

    assert clock.seconds_until(FAR_MS + jump_ms + 500) == pytest.approx(0.5, abs=0.05)


def test_a_first_answer_counts_even_where_its_question_took_long() -> None:
    clock = ServerClock()

    clock.observe(FAR_MS, time.monotonic() - 1)  # a claim that waited for a push

    assert clock.seconds_until(FAR_MS) == pytest.approx(0, abs=0.05)


def test_there_is_no_time_until_a_deadline_that_is_none() -> None:
    assert ServerClock().seconds_until(None) is None
