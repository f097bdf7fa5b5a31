"""bitladder/routing/rates.py and forecast.py, on a virtual clock."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque

import pytest

from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.forecast import RANK, Forecast, excess_s, forecast, retry_after_s, wait_at
from bitladder.routing.rates import HELD_S, STANDSTILL_S, Load, Reading, TierRates

NOT_ADMITTED = (0, 0, 0)
NORMAL = RANK["normal"]


def reading(
    at_s: float, depth: int = 0, served: int = 0, in_flight: int = 16, live: int = 1, slots: int = 16
) -> Reading:
    return Reading(
        at_s=at_s,
        depth=(0, depth, 0),
        in_flight=(0, in_flight, 0),
        served=(0, served, 0),
        live=live,
        slots=live * slots,
    )


def follow(*readings: Reading) -> Load:
    rates = TierRates()
    return [rates.add(each, NOT_ADMITTED) for each in readings][-1]


def a_load(
    depth: tuple[int, int, int], rate: float | None = 80, arrivals: float = 0, short: int = 2, free: int = 0
) -> Load:
    return Load(
        depth=depth,
        short=short,
        free=free,
        rate=rate,
        residence_s=0.2,
        arrivals=(arrivals, 0, 0),
        other_intakes=(0.0, 0.0, 0.0),
    )


def answer_s(load: Load, lane: str, admitted: tuple[int, int, int] = NOT_ADMITTED, elapsed_s: float = 0) -> float:
    found = forecast(load, RANK[lane], admitted, elapsed_s)
    assert found is not None
    return found.answer_s


def test_the_rate_is_measured_while_jobs_wait() -> None:
    load = follow(*(reading(second, depth=500, served=80 * second) for second in range(10)))

    assert load.rate == pytest.approx(80, rel=0.01)
    assert load.residence_s == pytest.approx(16 / 80, rel=0.01)


def test_without_a_backlog_the_jobs_served_are_no_rate() -> None:
    load = follow(*(reading(second, depth=2, served=10 * second) for second in range(60)))

    assert load.rate is None
    assert forecast(load, NORMAL, NOT_ADMITTED, 0) is None


def test_the_rate_is_unknown_until_a_first_batch_of_long_jobs_has_ended() -> None:
    young = follow(*(reading(second, depth=500, served=0) for second in range(10)))
    older = follow(*(reading(second, depth=500, served=16 * (second // 12)) for second in range(25)))

    assert young.rate is None
    assert older.rate == pytest.approx(16 / 12, rel=0.2)


def test_a_tier_that_stands_still_refuses_until_it_moves_again() -> None:
    rates = TierRates()
    second = int(STANDSTILL_S)
    for now in range(second + 1):
        standing = rates.add(reading(now, depth=500), NOT_ADMITTED)
    for now in range(1, 7):
        moving = rates.add(reading(second + now, depth=500 - 80 * now, served=80 * now), NOT_ADMITTED)

    assert answer_s(standing, "normal") > 1000
    assert moving.rate == pytest.approx(80, rel=0.05)


def test_a_backlog_without_workers_says_nothing_about_workers_that_start() -> None:
    rates = TierRates()
    for now in range(36):
        waiting = rates.add(reading(now, depth=8, in_flight=0, live=0), NOT_ADMITTED)
    come = rates.add(reading(36, depth=8, in_flight=0), NOT_ADMITTED)
    taken = [rates.add(reading(36 + now, in_flight=8), NOT_ADMITTED) for now in range(1, 7)]
    done = [rates.add(reading(42 + now, served=8, in_flight=0), NOT_ADMITTED) for now in range(1, 70)]

    assert {load.rate for load in (waiting, come, *taken, *done)} == {None}


def test_a_standstill_is_over_when_jobs_end_or_are_taken() -> None:
    still = [reading(now, depth=40, in_flight=1) for now in range(int(STANDSTILL_S) + 6)]
    end = still[-1].at_s

    ended = follow(*still, reading(end + 1, depth=39, served=1, in_flight=1))
    taken = follow(*still, reading(end + 1, depth=0, in_flight=41))
    moving = follow(*still, *(reading(end + now, depth=40, served=10 * now, in_flight=1) for now in range(1, 4)))

    assert follow(*still).rate == pytest.approx(1 / 35, rel=0.01)
    assert (ended.rate, taken.rate) == (None, None)
    assert moving.rate == pytest.approx(10, rel=0.1)  # not what it was with the time before


def test_a_job_that_finds_a_free_slot_does_not_wait() -> None:
    load = a_load((0, 0, 0), rate=0.5, free=10)

    assert [answer_s(load, "normal", (0, count, 0)) for count in (1, 10, 12)] == pytest.approx([0.2, 0.2, 4.2])
    assert answer_s(load, "batch", (4, 6, 2)) == pytest.approx(4.2)
    assert follow(reading(0, in_flight=6)).free == 10
    assert follow(reading(0, depth=1, in_flight=6)).free == 0  # a job waits, so no slot is idle


def test_a_rate_is_used_for_a_while_unless_workers_were_started_since() -> None:
    busy = [reading(second, depth=500, served=80 * second) for second in range(10)]

    def after(seconds: float, live: int) -> float | None:
        return follow(*busy, reading(9 + seconds, depth=0, served=800, in_flight=0, live=live)).rate

    assert after(1, live=1) == pytest.approx(80, rel=0.01)
    assert after(1, live=2) is None
    assert after(HELD_S + 1, live=1) is None
    assert after(HELD_S + 1, live=0) == pytest.approx(80, rel=0.01)


def test_a_counter_that_began_anew_is_measured_anew() -> None:
    load = follow(*(reading(second, depth=500, served=80 * second) for second in range(10)), reading(10, depth=500))

    assert load.rate is None


def test_jobs_admitted_since_the_reading_count_and_those_served_since_do_not() -> None:
    load = a_load((0, 160, 0))

    assert answer_s(load, "normal") == pytest.approx(2.2)
    assert answer_s(load, "normal", (0, 80, 0)) == pytest.approx(3.2)
    assert answer_s(load, "normal", (0, 80, 0), elapsed_s=1) == pytest.approx(2.2)


def test_other_intakes_are_expected_to_go_on_as_before() -> None:
    rates = TierRates()
    for second in range(20):
        load = rates.add(reading(second, depth=200 + 60 * second, served=80 * second), (0, 100, 0))

    assert load.other_intakes[NORMAL] == pytest.approx(40, rel=0.01)
    assert answer_s(load, "normal", elapsed_s=1) - answer_s(load, "normal") == pytest.approx(40 / 80 - 1, abs=0.01)


def test_more_urgent_lanes_come_first_but_every_lane_has_its_turns() -> None:
    quiet, flooded = a_load((160, 40, 40)), a_load((160, 40, 40), arrivals=200)

    assert answer_s(quiet, "urgent") == pytest.approx(160 / (80 * 14 / 16) + 0.2)
    assert answer_s(quiet, "normal") == pytest.approx(200 / (80 * 15 / 16) + 0.2)
    assert answer_s(quiet, "batch") == pytest.approx(240 / 80 + 0.2)
    assert answer_s(flooded, "normal") == pytest.approx(40 / (80 / 16) + 0.2)


def test_an_answer_is_too_late_by_what_exceeds_the_latency_budget() -> None:
    found = Forecast(ahead=400, rate=80, wait_s=5, answer_s=6)

    assert excess_s(found, LatencyBudget()) == 0
    assert excess_s(found, LatencyBudget(whole_s=10)) < 0
    assert excess_s(found, LatencyBudget(whole_s=5)) == pytest.approx(2)
    assert excess_s(found, LatencyBudget(first_s=5)) == pytest.approx(1)  # a stream has to begin, not to end
    assert [retry_after_s(2, chance) for chance in (0, 1)] == [2, 3]
    assert retry_after_s(0.1, 0) == 1


class Tier:
    """A queue and its workers on a virtual clock, with admission before it."""

    def __init__(self, slots: int, job_s: float, budget_s: float, *, admission: bool) -> None:
        self.slots, self.job_s, self.budget_s, self.admission = slots, job_s, budget_s, admission
        self.chance = random.Random(1)  # noqa: S311  (no secret)
        self.waiting: deque[float] = deque()  # deadlines
        self.running: list[tuple[float, float]] = []  # end, deadline
        self.rates, self.read_s, self.admitted = TierRates(), 0.0, 0
        self.load: Load | None = None
        self.served = self.in_time = self.late = self.refused = 0
        self.is_down = False

    def advance(self, now: float) -> None:
        while self.running and self.running[0][0] <= now:
            end, deadline = heapq.heappop(self.running)
            self.served += end < deadline  # what was aborted is not counted by finish.lua
            self.in_time += end < deadline
            self.late += end >= deadline
            self._start(end)
        self._start(now)

    def offer(self, now: float) -> None:
        self.advance(now)
        found = forecast(self.load, NORMAL, (0, self.admitted, 0), now - self.read_s) if self.load else None
        is_long = found is not None and self.load is not None and found.ahead > self.load.short
        if self.admission and is_long and found and excess_s(found, LatencyBudget(whole_s=self.budget_s)) > 0:
            self.refused += 1
            return
        self.admitted += 1
        self.waiting.append(now + self.budget_s)
        self._start(now)

    def read(self, now: float) -> None:
        self.advance(now)
        seen = reading(now, len(self.waiting), self.served, len(self.running), 0 if self.is_down else 1, self.slots)
        self.load, self.read_s = self.rates.add(seen, (0, self.admitted, 0)), now
        self.admitted = 0

    def _start(self, now: float) -> None:
        while self.waiting and len(self.running) < self.slots and not self.is_down:
            deadline = self.waiting.popleft()
            if deadline <= now:
                self.late += 1
                continue
            # Aborted at its deadline, as a worker does.
            end = min(now + self.chance.uniform(0.5, 1.5) * self.job_s, deadline)
            heapq.heappush(self.running, (end, deadline))


def run(tier: Tier, rate: float, seconds: float, *, begin: float = 0) -> None:
    """Offer jobs at random times, `rate` a second, and read the queues once a second."""
    now, next_read = begin, begin
    while now < begin + seconds:
        now += tier.chance.expovariate(rate)
        while next_read <= now:
            tier.read(next_read)
            next_read += 1
        tier.offer(now)


@pytest.mark.parametrize(
    ("slots", "job_s", "budget_s", "late_share"),
    [(16, 0.2, 3, 0.001), (64, 2, 10, 0.001), (256, 20, 60, 0.002), (4, 1, 8, 0.02)],
)
def test_at_three_times_the_capacity_the_work_that_is_done_is_in_time(
    slots: int, job_s: float, budget_s: float, late_share: float
) -> None:
    capacity, begin = slots / job_s, max(30, 8 * job_s)
    tier = Tier(slots, job_s, budget_s, admission=True)
    run(tier, 3 * capacity, begin)  # until the rate is known
    in_time, late, refused = tier.in_time, tier.late, tier.refused

    run(tier, 3 * capacity, 150, begin=begin)

    assert tier.in_time - in_time >= 0.95 * capacity * 150
    assert tier.late - late <= late_share * (tier.in_time - in_time)
    assert tier.refused - refused == pytest.approx(2 * capacity * 150, rel=0.1)


def test_without_the_admission_most_of_the_work_is_late() -> None:
    tier = Tier(16, 0.2, 3, admission=False)

    run(tier, 240, 120)

    assert tier.late > tier.in_time


def test_no_job_is_refused_below_the_capacity() -> None:
    tier = Tier(16, 0.2, 1, admission=True)

    run(tier, 0.8 * 80, 120)

    assert tier.refused == 0


def test_a_tier_without_workers_admits_what_it_could_serve_and_goes_on_when_they_are_back() -> None:
    tier = Tier(16, 0.2, 3, admission=True)
    run(tier, 240, 30)

    tier.is_down = True
    run(tier, 240, 60, begin=30)
    waiting = len(tier.waiting)
    tier.is_down, before = False, tier.in_time
    run(tier, 240, 30, begin=90)

    assert waiting <= (3 + 1) * 80  # a second more, between two readings
    assert tier.in_time - before > 0.9 * 30 * 80


def test_a_forecast_is_finite_whatever_the_lanes_do() -> None:
    for rank in range(3):
        found = forecast(a_load((10**6, 10**6, 10**6), rate=0.01, arrivals=10**9), rank, NOT_ADMITTED, 3)
        assert found is not None
        assert math.isfinite(found.answer_s)


@pytest.mark.parametrize("lane", ["urgent", "normal", "batch"])
def test_a_waiting_job_waits_as_long_as_a_new_one_did_at_its_place_and_less_the_nearer_it_comes(lane: str) -> None:
    load = a_load((5, 40, 300), arrivals=10)
    depth = load.depth[RANK[lane]]
    waits = [wait_at(load, RANK[lane], before) or 0 for before in range(depth)]
    found = forecast(load, RANK[lane], NOT_ADMITTED, 0)

    assert found
    assert waits[-1] == pytest.approx(found.wait_s)
    assert waits == sorted(waits)
    assert wait_at(a_load((5, 40, 300), rate=None), RANK[lane], 3) is None
