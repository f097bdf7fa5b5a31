"""What a worker claims next: by the claim's own plan, and by the very lines of Lua that Redis runs for it.

The rule of overflow, the order of lanes and when lower tiers come first are Lua (bitladder/queue/scripts); here are the
lists that it asks, and the loop around it as claim.lua has it.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence

from bitladder.queue.claim_plan import claim_plan, is_eager
from bitladder.queue.overflow import Entry, OverflowRule
from bitladder.queue_name import Lane, QueueName
from bitladder.script_constants import JOBS_PER_CYCLE
from bitladder.settings.sections import Settings
from calibration.simulation.simulated_work import Work, Worker

LANES = tuple(Lane)


class WaitingJobs:
    """The queues of one model for requests without tenants, deadlines and ceilings: each has one list."""

    def __init__(self, settings: Settings, model: str, workers: Sequence[int], work: Work) -> None:
        ladder = settings.models[model].ladder
        rule = OverflowRule()
        plans = [json.loads(claim_plan(settings, model, tier).plan) for tier in ladder]
        self.lists: list[list[deque[int]]] = [[deque() for _ in LANES] for _ in ladder]  # by rank and lane
        self.waiting = [0] * len(ladder)
        self._work, self._at_s, self._limits = work, work.at_s, settings.queue
        self._wakes = wakes_of(settings, model)
        self.expired: list[int] = []  # stays empty: no job has a deadline
        lower = reversed(plans[-1]["below"])
        self._workers = {tier["live"]: count for tier, count in zip(lower, workers[:-1], strict=True)}
        self._by_name = {
            str(QueueName(model, tier, lane)): (rank, place)
            for rank, tier in enumerate(ladder)
            for place, lane in enumerate(LANES)
        }
        self._marked: dict[str, int] = {}  # by flag: since when (ms)
        self._flags = [[lane["flag"] for lane in plan["own"]] for plan in plans]
        self._low = [[lane["low"] for lane in plan["own"]] for plan in plans]
        self._reserve = [plan["reserve"] for plan in plans]
        self._orders = [rule.lane_order(jobs) for jobs in range(JOBS_PER_CYCLE)]
        self._looks_down = [rule.looks_down_first(claims) for claims in range(JOBS_PER_CYCLE)]
        self._jobs, self._claims = [0] * len(ladder), [0] * len(ladder)
        self.facts = _Facts(self, plans[0]["share"])
        # By rank; the nearest tier first.
        self._take_below = [rule.bind([self._kept(tier) for tier in plan["below"]], self.facts) for plan in plans]

    def _kept(self, tier: Entry) -> Entry:
        """Return a tier of a plan without the lists for ceilings, which are empty here."""
        lists = ("all", "escalatable")
        kept = [
            lane | {key: [name for name in lane[key] if name in self._by_name] for key in lists}
            for lane in tier["lanes"]
        ]
        return {**tier, "lanes": kept}

    def add(self, job: int, now_s: float) -> bool:
        del now_s
        rank = self._work.rank[job]
        jobs = self.lists[rank][self._work.lane[job]]
        if len(jobs) >= self._limits.max_depth or sum(self.waiting) >= self._limits.max_total:
            return False
        jobs.append(job)
        self.waiting[rank] += 1
        return True

    def wakes_others(self, job: int) -> bool:
        """Return whether the workers of other tiers are woken, as a submission wakes them."""
        rank, lane = self._work.rank[job], self._work.lane[job]
        return len(self.lists[rank][lane]) > self._wakes[rank][lane]

    def finds(self, rank: int) -> bool:
        """Return whether a worker of this rank would find anything to decide: jobs that wait, or a mark to clear."""
        return any(map(self._may_give, range(rank + 1)))

    @property
    def is_empty(self) -> bool:
        return not any(self.waiting)

    @property
    def depths(self) -> list[list[int]]:
        """How many jobs wait, by rank and lane."""
        return [[len(jobs) for jobs in lanes] for lanes in self.lists]

    def expire(self, job: int, now_s: float) -> None:
        """Do nothing: no job has a deadline."""

    def end(self, worker: Worker, job: int, now_s: float, *, is_served: bool) -> None:
        """Do nothing: no list knows what runs."""

    def jobs_before(self, job: int) -> int | None:
        """Return nothing: all belong to one tenant."""
        del job
        return None

    def _may_give(self, rank: int) -> bool:
        if self.waiting[rank] or not self._marked:
            return self.waiting[rank] > 0
        return any(flag in self._marked for flag in self._flags[rank])

    def claim(self, worker: Worker, free: int, now_s: float) -> list[int]:
        """Return the jobs that a worker with so many free slots starts now, in the order of claim.lua."""
        rank = worker.rank
        taken: list[int] = []
        below = rank > 0 and any(self._may_give(lower) for lower in range(rank))
        if rank > 0:
            self._claims[rank] = (self._claims[rank] + 1) % JOBS_PER_CYCLE
        if below and self._looks_down[self._claims[rank]]:
            self._claim_below(rank, 1, free, taken, now_s)
        if self.waiting[rank]:
            self._claim_own(rank, free, taken)
        if below:
            self._claim_below(rank, free, free, taken, now_s)
        if self._marked:
            for flag, low, jobs in zip(self._flags[rank], self._low[rank], self.lists[rank], strict=True):
                if len(jobs) <= low:
                    self._marked.pop(flag, None)
        return taken

    def _claim_own(self, rank: int, free: int, taken: list[int]) -> None:
        lists = self.lists[rank]
        while len(taken) < free and self.waiting[rank]:
            order, run = self._orders[self._jobs[rank] % JOBS_PER_CYCLE]
            if sum(map(bool, lists)) <= 1:
                run = free
            lane = next(lane for lane in order if lists[lane])
            popped = self.pop(rank, lane, min(run, free - len(taken)))
            self._jobs[rank] = (self._jobs[rank] + len(popped)) % JOBS_PER_CYCLE
            taken += popped

    def _claim_below(self, rank: int, limit: int, free: int, taken: list[int], now_s: float) -> None:
        room = min(limit, free - self._reserve[rank]) - len(taken)
        self.facts.begin(rank, taken, now_s)
        for index, lower in enumerate(range(rank - 1, -1, -1)):
            if room <= 0:
                return
            if self._may_give(lower):
                room = self._take_below[rank](index, room)

    def pop(self, rank: int, lane: int, count: int) -> list[int]:
        jobs = self.lists[rank][lane]
        popped = [jobs.popleft() for _ in range(min(count, len(jobs)))]
        self.waiting[rank] -= len(popped)
        return popped

    def named(self, name: str) -> tuple[int, int]:
        """Return rank and lane of a list."""
        return self._by_name[name]

    def depth(self, lists: Sequence[str]) -> int:
        depth = 0
        for name in lists:
            rank, lane = self._by_name[name]
            depth += len(self.lists[rank][lane])
        return depth

    def head_ms(self, name: str) -> float | None:
        """Return since when the first job of a list waits."""
        rank, lane = self._by_name[name]
        jobs = self.lists[rank][lane]
        return self._at_s[jobs[0]] * 1000 if jobs else None

    def has_workers(self, live: str) -> bool:
        """Return whether a lower tier has workers, by the key that names them."""
        return self._workers[live] > 0

    def marks(self) -> dict[str, int]:
        return self._marked


def wakes_of(settings: Settings, model: str) -> list[list[float]]:
    """Return by rank and lane above which depth the workers of other tiers are woken, as a submission wakes them."""
    tiers = settings.models[model].tiers
    return [
        [_wakes_from(settings, model, tier.high, [other.name for other in tiers[rank + 1 :]], lane) for lane in LANES]
        for rank, tier in enumerate(tiers)
    ]


def _wakes_from(settings: Settings, model: str, high: int, above: Sequence[str], lane: Lane) -> float:
    if lane is not Lane.BATCH and any(is_eager(settings, model, tier, lane) for tier in above):
        return 0.0
    return float(high) if lane in settings.lanes.overflow else math.inf


class _Facts:
    """What the rule asks (bitladder/queue/overflow.py)."""

    def __init__(self, jobs: WaitingJobs, share: float) -> None:
        self._jobs, self.share, self.now = jobs, share, 0
        self._rank, self._taken = 0, list[int]()

    def begin(self, rank: int, taken: list[int], now_s: float) -> None:
        self._rank, self._taken, self.now = rank, taken, int(now_s * 1000)

    def depth(self, lists: Sequence[str]) -> int:
        return self._jobs.depth(lists)

    def marked_at(self, lane: Entry) -> int | None:
        return self._jobs.marks().get(lane["flag"])

    def mark(self, lane: Entry, overflows: bool) -> None:
        if overflows:
            self._jobs.marks().setdefault(lane["flag"], self.now)
        else:
            self._jobs.marks().pop(lane["flag"], None)

    def has_workers(self, tier: Entry) -> bool:
        return self._jobs.has_workers(tier["live"])

    def head(self, name: str) -> tuple[int, int | None] | None:
        at_ms = self._jobs.head_ms(name)
        return None if at_ms is None else (int(at_ms), None)

    def drain_rate(self, lane: Entry) -> float | None:
        """Return nothing: no tier has a mark of the expected wait (fleet_file.py refuses it)."""
        del lane
        return None

    def is_idle(self) -> bool:
        return self._jobs.waiting[self._rank] == 0

    def take(self, lists: Sequence[str], limit: int) -> tuple[int, int, int]:
        heads = [(at_ms, name) for name in lists if (at_ms := self._jobs.head_ms(name)) is not None]
        if not heads:
            return 0, 0, 0
        rank, lane = self._jobs.named(min(heads)[1])
        popped = self._jobs.pop(rank, lane, limit)
        self._taken += popped
        return len(popped), len(popped), 0
