"""workers/engine_health/pause.py: for how long a busy engine is sent nothing."""

from __future__ import annotations

import pytest

from workers.engine_health.pause import MAX_S, MAX_UNASKED_S, Pause


@pytest.mark.parametrize(("asked_for_s", "wait_s"), [(30.0, 30.0), (0.25, 0.25), (86_400.0, MAX_S)])
def test_an_engine_is_sent_nothing_for_as_long_as_it_says_up_to_a_bound(asked_for_s: float, wait_s: float) -> None:
    pause = Pause()

    assert pause.busy(100.0, 99.0, asked_for_s, "full") == pytest.approx(wait_s)
    assert pause.left_s(100.0 + wait_s / 2) == pytest.approx(wait_s / 2)
    assert pause.left_s(100.0 + wait_s) == 0
    assert pause.reason == "full"


def test_sixteen_refusals_at_once_are_one_pause_and_the_longest_counts() -> None:
    pause = Pause()

    begun = [pause.busy(100.0 + at / 100, 99.0, asked_for_s, "") for at, asked_for_s in enumerate([10.0] * 15 + [20.0])]

    assert [begun[0], *set(begun[1:])] == [10.0, 0.0]
    assert pause.left_s(101.0) == pytest.approx(19.15)


def test_where_the_engine_does_not_say_the_pause_grows_while_no_request_is_answered() -> None:
    pause, now, waits = Pause(), 100.0, []
    for _ in range(8):
        waits.append(pause.busy(now + 0.1, now, None, ""))
        pause.busy(now + 0.15, now, None, "")  # sent at the same time: says nothing new
        now += 0.2 + waits[-1]

    assert waits == pytest.approx([0.0, 0.2, 0.4, 0.8, 1.6, MAX_UNASKED_S, MAX_UNASKED_S, MAX_UNASKED_S])


def test_one_request_that_is_always_refused_keeps_no_other_waiting() -> None:
    pause = Pause()
    for now in range(100, 200):
        assert pause.busy(now, now - 0.1, None, "") == 0
        pause.answered(now + 0.5)


def test_an_answer_to_an_earlier_request_does_not_say_that_there_is_room_now() -> None:
    pause = Pause()
    pause.busy(100.0, 99.9, None, "")
    pause.answered(50.0)

    assert pause.busy(101.0, 100.9, None, "") > 0
