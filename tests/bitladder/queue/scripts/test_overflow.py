"""scripts/parts/overflow.lua, the lines that a claim runs: what may escalate, as a table of cases, without Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.overflow import Entry, OverflowRule
from tests.conftest import make_settings

RULE = OverflowRule()
NOW = 1_000_000
OPEN = "m:int4:normal"
LANE = {
    "all": [OPEN, "m:int4:normal:max-int4"],
    "escalatable": [OPEN],
    "flag": "f",
    "high": 8,
    "low": 3,
    "may_overflow": True,
}
TIER = {"live": "l", "lanes": [LANE]}


class Lists:
    """Lists in memory: what Redis is to the claim. A job is (enqueued, deadline); None is an id whose job is over."""

    now, share = NOW, 0.5

    def __init__(self, lists: Mapping[str, int | Sequence[tuple[int, int] | None]], *, marked: bool = False) -> None:
        fresh = (NOW - 1, NOW + 1000)
        self.lists = {name: [fresh] * its if isinstance(its, int) else list(its) for name, its in lists.items()}
        self.marks = {"f"} if marked else set()
        self.workers, self.idle = 1, True
        self.taken: list[str] = []

    def depth(self, lists: Sequence[str]) -> int:
        return sum(job is not None for name in lists for job in self.lists.get(name, ()))

    def marked_at(self, lane: Entry) -> int | None:
        return NOW if lane["flag"] in self.marks else None

    def drain_rate(self, lane: Entry) -> float | None:
        rate: float | None = lane["rate"]
        return rate

    def is_idle(self) -> bool:
        return self.idle

    def mark(self, lane: Entry, overflows: bool) -> None:
        self.marks = self.marks | {lane["flag"]} if overflows else self.marks - {lane["flag"]}

    def has_workers(self, tier: Entry) -> bool:
        del tier
        return self.workers > 0

    def head(self, name: str) -> tuple[int, int] | None:
        return next(iter(self.lists.get(name, ())), None)

    def take(self, lists: Sequence[str], limit: int) -> tuple[int, int, int]:
        waiting = [name for name in lists if self.lists.get(name)]
        if not waiting:
            return 0, 0, 0
        name = min(waiting, key=lambda name: (self.head(name) or (0, 0))[0])
        popped, self.lists[name] = self.lists[name][:limit], self.lists[name][limit:]
        jobs = [job for job in popped if job]
        started = [job for job in jobs if job[1] > NOW]
        self.taken += [name] * len(started)
        return len(popped), len(started), len(jobs) - len(started)


def allowed(lists: Lists, **lane: bool) -> tuple[int, list[str], bool]:
    allowance = RULE.allowance(TIER, LANE | lane, lists)
    return allowance.jobs, list(allowance.lists), allowance.only_late


@pytest.mark.parametrize(
    ("depth", "marked", "escalating", "marked_then"),
    [
        (0, False, 0, False),
        (3, False, 0, False),
        (8, False, 0, False),  # at the high mark, not above it
        (9, False, 6, True),  # above it: all that is above the low one
        (20, False, 17, True),
        (8, True, 5, True),  # on the way down it goes on
        (4, True, 1, True),
        (3, True, 0, False),  # down to the low mark: over
        (0, True, 0, False),
        (9, True, 6, True),
    ],
)
def test_a_lane_overflows_above_its_high_mark_until_it_is_down_to_its_low_one(
    depth: int, marked: bool, escalating: int, marked_then: bool
) -> None:
    lists = Lists({OPEN: depth}, marked=marked)

    assert allowed(lists)[0] == escalating
    assert bool(lists.marks) == marked_then


def test_the_depth_is_that_of_all_lists_and_only_those_that_may_come_this_far_do() -> None:
    lists = Lists({OPEN: 2, "m:int4:normal:max-int4": 10})

    assert allowed(lists) == (9, [OPEN], False)
    assert RULE.take(TIER, 16, lists) == 14
    assert lists.taken == [OPEN, OPEN]


@pytest.mark.parametrize(
    ("waited", "left", "escalating"),
    [
        (0, 1000, 0),
        (500, 500, 0),  # just its share
        (501, 499, 1),
        (999, 1, 1),
        (50, -10, 1),  # its deadline has passed: the claim that takes it ends it
    ],
)
def test_a_head_escalates_when_it_has_used_up_its_share_of_the_time_to_its_deadline(
    waited: int, left: int, escalating: int
) -> None:
    lists = Lists({OPEN: [(NOW - waited, NOW + left)]})

    assert allowed(lists) == (escalating, [OPEN] if escalating else [], True)
    assert lists.marks == set()


def test_only_late_heads_escalate_one_after_the_other_and_none_behind_a_fresh_one() -> None:
    late, fresh = (NOW - 900, NOW + 100), (NOW - 1, NOW + 1000)
    lists = Lists({OPEN: [late, late, fresh, late]})

    RULE.take(TIER, 16, lists)
    RULE.take(TIER, 16, lists)
    RULE.take(TIER, 16, lists)

    assert (lists.taken, len(lists.lists[OPEN])) == ([OPEN] * 2, 2)


def test_an_id_whose_job_is_over_uses_up_nothing_of_what_may_escalate() -> None:
    late = (NOW - 900, NOW + 100)
    over = Lists({OPEN: [None, *[(NOW - 1, NOW + 1000)] * 9]})
    behind = Lists({OPEN: [late, None, late]})

    assert RULE.take(TIER, 16, over) == 10
    assert (len(over.taken), len(over.lists[OPEN])) == (6, 3)
    assert RULE.take(TIER, 16, behind) == 15


def test_what_has_expired_counts_as_escalated_and_needs_no_room() -> None:
    expired = (NOW - 900, NOW - 1)
    lists = Lists({OPEN: [expired, expired, *[(NOW - 1, NOW + 1000)] * 8]})

    assert RULE.take(TIER, 5, lists) == 0
    assert (len(lists.taken), len(lists.lists[OPEN])) == (5, 3)


@pytest.mark.parametrize("may_overflow", [True, False])
@pytest.mark.parametrize("depth", [1, 3, 9])
def test_a_tier_without_a_worker_gives_all_that_may_escalate(depth: int, may_overflow: bool) -> None:
    lists = Lists({OPEN: depth})
    lists.workers = 0

    assert allowed(lists, may_overflow=may_overflow) == (depth, [OPEN], False)


def test_a_lane_that_does_not_overflow_keeps_what_is_not_late_however_deep_it_is() -> None:
    assert allowed(Lists({OPEN: 50}), may_overflow=False) == (0, [], True)
    assert allowed(Lists({OPEN: [(NOW - 900, NOW + 100)] * 50}), may_overflow=False) == (1, [OPEN], True)


def test_no_more_escalates_than_there_is_room_for() -> None:
    lists = Lists({OPEN: 20})

    assert RULE.take(TIER, 4, lists) == 0
    assert len(lists.taken) == 4


@pytest.mark.parametrize(
    ("ceiling", "at_int8", "at_fp8"), [("", True, True), (":max-int4", False, False), (":max-int8", True, False)]
)
def test_a_job_escalates_from_a_dead_tier_as_far_as_its_ceiling(ceiling: str, at_int8: bool, at_fp8: bool) -> None:
    settings = make_settings("redis://127.0.0.1:1/0")

    for tier, expected in (("int8", at_int8), ("fp8", at_fp8)):
        lists = Lists({f"smollm2:int4:normal{ceiling}": 1})
        lists.workers = 0
        nearest_first = json.loads(claim_plan(settings, "smollm2", tier).plan)["below"]
        room = 4
        for lower in nearest_first:
            room = RULE.take(lower, room, lists)
        assert bool(lists.taken) == expected, tier


def test_urgent_lanes_escalate_first() -> None:
    plan = json.loads(claim_plan(make_settings("redis://127.0.0.1:1/0"), "smollm2", "int8").plan)
    lists = Lists({f"smollm2:int4:{lane}": 1 for lane in ("batch", "normal", "urgent")})
    lists.workers = 0

    RULE.take(plan["below"][0], 2, lists)

    assert lists.taken == ["smollm2:int4:urgent", "smollm2:int4:normal"]
