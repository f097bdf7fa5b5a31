"""workers/handling/engine_share.py: the shares of all executions add up to the time in which the engine ran any."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from workers.handling.engine_share import EngineTime, Execution


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


# How long each step takes, and which open execution ends then; where there is no such one, another begins.
STEPS = st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 6)), max_size=60)


@given(STEPS)
def test_the_shares_of_all_executions_add_up_to_the_time_in_which_the_engine_was_busy(
    steps: list[tuple[float, int]],
) -> None:
    clock = Clock()
    engine, busy_s = EngineTime(clock), 0.0
    running: list[Execution] = []
    over: list[Execution] = []
    for wait_s, place in steps:
        clock.now_s += wait_s
        busy_s += wait_s if running else 0.0
        if place < len(running):
            over.append(running.pop(place))
            over[-1].end()
        else:
            running.append(engine.begin())
    for execution in running:
        execution.end()

    assert math.isclose(sum(execution.share_s for execution in over + running), busy_s, rel_tol=1e-9, abs_tol=1e-9)
    assert all(execution.share_s <= execution.run_s + 1e-9 for execution in over + running)


def test_jobs_that_overlap_in_part_share_that_part_alone() -> None:
    clock = Clock()
    engine = EngineTime(clock)

    first = engine.begin()
    clock.now_s = 10
    second = engine.begin()
    clock.now_s = 14
    first.end()
    clock.now_s = 20
    second.end()
    clock.now_s = 99
    second.end()

    assert (first.run_s, first.share_s) == (14, 12)
    assert (second.run_s, second.share_s) == (10, 8)
