"""Who awaits many jobs waits half a minute for what does not answer, from when that is noticed on."""

from __future__ import annotations

import time

import pytest

from bitladder.client.polls import Polls
from bitladder.errors import JobError

AWAY = JobError("cannot reach the intake")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    return now_s


def asked(clock: list[float]) -> Polls:
    """Return the polls of one job, of which an intake has said that it runs."""
    del clock
    polls = Polls(600, is_bounded=True)
    polls.add((0, "job"))
    (poll,) = polls.due()
    polls.answered(poll, {"status": "running"})
    return polls


def fail(polls: Polls) -> None:
    (poll,) = polls.due()
    polls.answered(poll, AWAY)


def test_the_time_in_which_a_program_was_busy_with_an_outcome_does_not_count(clock: list[float]) -> None:
    polls = asked(clock)
    clock[0] += 60

    for _ in range(3):
        fail(polls)
        clock[0] += 10


def test_after_half_a_minute_without_an_answer_it_is_said(clock: list[float]) -> None:
    polls = asked(clock)
    fail(polls)
    clock[0] += 31

    with pytest.raises(JobError, match="cannot reach the intake"):
        fail(polls)


def test_what_never_answered_is_said_at_once(clock: list[float]) -> None:
    del clock
    polls = Polls(600, is_bounded=True)
    polls.add((0, "job"))

    with pytest.raises(JobError, match="cannot reach the intake"):
        fail(polls)
