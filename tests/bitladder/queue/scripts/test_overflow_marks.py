"""Marks of overflow by depth, age and expected wait, and service below the floor: properties, with a virtual clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.queue.overflow import OverflowRule
from tests.bitladder.queue.scripts.test_overflow import LANE, NOW, OPEN, TIER, Lists

RULE = OverflowRule()
AGE, WAIT = {"high": 2000, "low": 500}, {"high": 4000, "low": 1000}


def aged(*ages_ms: int) -> Lists:
    """Return lists with jobs of these ages, the oldest first, whose deadlines are far away."""
    return Lists({OPEN: [(NOW - age, NOW + 10**9) for age in ages_ms]})


def escalating(lists: Lists, *, marked: bool = False, **lane: Any) -> int:  # noqa: ANN401  (a field of the plan)
    lists.marks = {"f"} if marked else set()
    return RULE.take(TIER | {"lanes": [LANE | lane]}, 16, lists) - 16


@pytest.mark.parametrize(
    ("ages", "marked", "taken", "marked_then"),
    [
        ((2000,), False, 0, False),  # at the high mark, not above it
        ((2001, 501, 500), False, 2, True),  # above it: all that are older than the low one
        ((1999, 400), True, 1, True),  # on the way down it goes on
        ((500, 400), True, 0, False),  # down to the low mark: over
        ((), True, 0, False),
    ],
)
def test_a_lane_whose_oldest_job_is_above_the_high_mark_overflows_down_to_the_low_one(
    ages: tuple[int, ...], marked: bool, taken: int, marked_then: bool
) -> None:
    lists = aged(*ages)

    assert -escalating(lists, marked=marked, age=AGE) == taken
    assert bool(lists.marks) == marked_then


@pytest.mark.parametrize(
    ("depth", "rate", "marked", "taken", "marked_then"),
    [
        (7, 2.0, False, 0, False),  # 3.5 s
        (7, None, False, 0, False),  # nothing is known
        (8, 1.0, False, 7, True),  # 8 s: down to 1 s, which is one job
        (3, 2.0, True, 1, True),  # 1.5 s: still above the low mark, which is two jobs
        (2, 2.0, True, 0, False),
    ],
)
def test_a_lane_whose_jobs_expect_a_long_wait_overflows_until_it_is_short(
    depth: int, rate: float | None, marked: bool, taken: int, marked_then: bool
) -> None:
    lists = Lists({OPEN: depth})

    assert -escalating(lists, marked=marked, wait=WAIT, **({"rate": rate} if rate else {})) == taken
    assert bool(lists.marks) == marked_then


def test_an_eager_lane_gives_all_to_a_worker_with_nothing_of_its_own_and_to_no_other() -> None:
    idle, busy = Lists({OPEN: 5}), Lists({OPEN: 5})
    busy.idle = False

    assert (-escalating(idle, eager=True), -escalating(busy, eager=True)) == (5, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4000)), min_size=1, max_size=60), st.booleans())
def test_a_mark_changes_only_where_a_value_has_crossed_its_whole_band(
    readings: Sequence[tuple[int, int]], has_age: bool
) -> None:
    lane = LANE | ({"age": AGE} if has_age else {})
    lists, was_marked = Lists({}), False
    for depth, age in readings:
        lists.lists = {OPEN: [(NOW - age, NOW + 10**9)] * depth}
        RULE.allowance(TIER, lane, lists)
        values = [(depth, LANE["high"], LANE["low"])]
        values += [(age if depth else 0, AGE["high"], AGE["low"])] if has_age else []
        if not was_marked and lists.marks:
            assert any(value > high for value, high, _ in values)  # type: ignore[operator]
        elif was_marked and not lists.marks:
            assert all(value <= low for value, _, low in values)  # type: ignore[operator]
        was_marked = bool(lists.marks)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20), st.booleans(), st.booleans(), st.booleans())
def test_no_more_is_taken_than_there_is_room_for_and_nothing_of_a_list_with_a_lower_ceiling(
    open_depth: int, low_depth: int, room: int, is_dead: bool, eager: bool, has_age: bool
) -> None:
    lists = Lists({OPEN: open_depth, "m:int4:normal:max-int4": low_depth})
    lists.workers = 0 if is_dead else 1
    lane = LANE | {"eager": eager} | ({"age": AGE} if has_age else {})

    left = RULE.take(TIER | {"lanes": [lane]}, room, lists)

    assert room - left == len(lists.taken) <= min(room, open_depth)
    assert set(lists.taken) <= {OPEN}


class Tiers(Lists):
    """Two tiers with a lane each: facts by their `live` key and their flag."""

    def __init__(self, depths: Mapping[str, int], live: set[str], marked: Mapping[str, int]) -> None:
        super().__init__(depths)
        self.live, self.marked = live, dict(marked)

    def marked_at(self, lane: Mapping[str, Any]) -> int | None:
        return self.marked.get(lane["flag"])

    def mark(self, lane: Mapping[str, Any], overflows: bool) -> None:
        self.marked = (
            {lane["flag"]: self.now} | self.marked
            if overflows
            else {flag: at for flag, at in self.marked.items() if flag != lane["flag"]}
        )

    def has_workers(self, tier: Mapping[str, Any]) -> bool:
        return tier["live"] in self.live


def entry(tier: str) -> dict[str, Any]:
    lane = {"all": [tier], "escalatable": [], "flag": tier, "high": 8, "low": 3, "may_overflow": True}
    return {"tier": {"live": tier}, "lane": lane}


@pytest.mark.parametrize(
    ("depths", "live", "marked", "taken"),
    [
        ({"a": 8, "b": 0}, "ab", {}, 0),  # its own tier has room
        ({"a": 9, "b": 0}, "ab", {}, 0),  # it overflows since now: the tier above may have room
        ({"a": 9, "b": 0}, "ab", {"a": NOW - 1499}, 0),
        ({"a": 9, "b": 0}, "ab", {"a": NOW - 1500}, 6),  # the tier above has had the time
        ({"a": 9, "b": 9}, "ab", {}, 6),  # both overflow
        ({"a": 9, "b": 0}, "a", {}, 6),  # the tier above is dead
        ({"a": 2, "b": 0}, "", {}, 2),  # both are dead
        ({"a": 3, "b": 0}, "ab", {"a": NOW - 9999}, 0),  # it has come down to its low mark
    ],
)
def test_a_job_is_served_below_its_floor_only_where_every_tier_from_it_on_is_full_or_dead(
    depths: Mapping[str, int], live: str, marked: Mapping[str, int], taken: int
) -> None:
    facts = Tiers(depths, set(live), marked)

    assert 16 - RULE.take_below_floor([{"name": "a", "tiers": [entry("a"), entry("b")]}], 16, facts) == taken
    assert facts.taken == ["a"] * taken


def test_under_a_steady_load_at_the_mark_overflow_does_not_flap() -> None:
    lists, flips, was_marked = Lists({OPEN: 8}), 0, False
    for tick in range(1000):  # the queue goes up and down by one around the high mark
        lists.lists[OPEN] = [(NOW - 1, NOW + 1000)] * (8 + tick % 2)
        RULE.allowance(TIER, LANE, lists)
        flips, was_marked = flips + (bool(lists.marks) != was_marked), bool(lists.marks)

    assert flips == 1
