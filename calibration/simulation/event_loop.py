"""The simulated fleet: a heap of events on a virtual clock, workers that claim, and jobs that share a worker's speed.

At every moment the jobs of a worker each get its curve's rate for so many jobs. So a worker keeps how much each of its
jobs was given since it was last idle (`progress`); a job ends when that has grown by what it needs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from calibration.simulation.claim_rule import WaitingJobs


@dataclass(slots=True, kw_only=True)
class Work:
    """Jobs in the order of their coming, one value each; the lower half is what came of them."""

    at_s: Sequence[float]
    rank: Sequence[int]  # of the floor
    lane: Sequence[int]
    input_tokens: Sequence[float]
    output_tokens: Sequence[float]
    begun_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)  # when its first token came
    ended_s: list[float] = field(default_factory=list)
    served: list[int] = field(default_factory=list)  # rank
    share_s: list[float] = field(default_factory=list)  # of its worker's time, shared evenly at every moment

    def __post_init__(self) -> None:
        count = len(self.at_s)
        self.begun_s, self.first_s, self.ended_s, self.share_s = ([math.nan] * count for _ in range(4))
        self.served = [-1] * count


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast the workers of one tier are, by the jobs that they have at once."""

    slots: int
    job_rates: Sequence[float]
    first_token_s: Sequence[float]
    input_tokens: float | None  # of the prompts whose times to the first token these are


class _Worker:
    __slots__ = ("clock_s", "ends", "jobs", "progress", "rank", "shared_s", "speed", "version")

    def __init__(self, rank: int, speed: Speed) -> None:
        self.rank, self.speed = rank, speed
        self.jobs, self.version = 0, 0
        self.clock_s, self.progress, self.shared_s = 0.0, 0.0, 0.0
        self.ends: list[tuple[float, int, float]] = []  # progress at a job's end, job, shared_s at its begin

    def advance(self, now_s: float) -> None:
        if self.jobs:
            passed_s = now_s - self.clock_s
            self.progress += passed_s * self.speed.job_rates[self.jobs]
            self.shared_s += passed_s / self.jobs
        else:
            self.progress, self.shared_s = 0.0, 0.0  # so that they stay small, and exact
        self.clock_s = now_s


class EventLoop:
    """Runs work through workers until all of it has ended."""

    def __init__(
        self,
        work: Work,
        waiting: WaitingJobs,
        speeds: Sequence[tuple[int, Speed]],
        wakes: Sequence[Sequence[float]],
        poll_s: float,
    ) -> None:
        """Take the number and speed of workers by rank, and by rank and lane the depth above which others are woken.

        `poll_s`: how often idle workers look at the queues when nobody wakes them.
        """
        self._work, self._waiting, self._wakes, self._poll_s = work, waiting, wakes, poll_s
        self._events: list[tuple[float, int, int, _Worker | None]] = []
        self._sequence, self._is_polling = 0, False
        # Workers with a free slot: the one that has waited longest claims first.
        self._free = [deque(_Worker(rank, speed) for _ in range(count)) for rank, (count, speed) in enumerate(speeds)]
        self._left = len(work.at_s)

    def run(self, on_progress: Callable[[int], None] = lambda _: None) -> None:
        times, events = self._work.at_s, self._events
        coming, count = 0, len(times)
        while self._left:
            if coming < count and not (events and events[0][0] <= times[coming]):
                self._arrive(coming, times[coming])
                coming += 1
                if not coming % 10_000:
                    on_progress(coming)
                continue
            now_s, _, version, worker = heappop(events)
            if worker is None:
                self._poll(now_s)
            elif version == worker.version:
                self._end(worker, now_s)

    def _push(self, at_s: float, worker: _Worker | None) -> None:
        self._sequence += 1
        heappush(self._events, (at_s, self._sequence, worker.version if worker else 0, worker))

    def _arrive(self, job: int, now_s: float) -> None:
        rank, lane = self._work.rank[job], self._work.lane[job]
        self._waiting.add(rank, lane, job)
        if self._free[rank]:
            self._claim_first(rank, now_s)
        if len(self._waiting.lists[rank][lane]) > self._wakes[rank][lane]:
            for higher in range(rank + 1, len(self._free)):
                self._claim_all(higher, now_s)
        if not self._is_polling and self._waiting.waiting[rank]:
            self._is_polling = True
            self._push(now_s + self._poll_s, None)

    def _claim_all(self, rank: int, now_s: float) -> None:
        while self._free[rank] and self._claim_first(rank, now_s):
            pass

    def _claim_first(self, rank: int, now_s: float) -> bool:
        """Let the tier's first worker with a free slot claim; it goes behind the others, or has none left."""
        free = self._free[rank]
        worker = free.popleft()
        has_claimed = self._claim(worker, now_s)
        if worker.jobs < worker.speed.slots:
            free.append(worker)
        return has_claimed

    def _claim(self, worker: _Worker, now_s: float) -> bool:
        jobs = self._waiting.claim(worker.rank, worker.speed.slots - worker.jobs, now_s)
        if jobs:
            worker.advance(now_s)
            for job in jobs:
                self._begin(worker, job, now_s)
            self._schedule(worker)
        return bool(jobs)

    def _begin(self, worker: _Worker, job: int, now_s: float) -> None:
        work, speed = self._work, worker.speed
        worker.jobs += 1
        first_s = speed.first_token_s[worker.jobs]
        if speed.input_tokens:
            first_s *= work.input_tokens[job] / speed.input_tokens
        # The first token's time is work too, at the rate of now: who comes meanwhile slows it down.
        tokens = first_s * speed.job_rates[worker.jobs] + max(0.0, work.output_tokens[job] - 1)
        heappush(worker.ends, (worker.progress + tokens, job, worker.shared_s))
        work.begun_s[job], work.first_s[job], work.served[job] = now_s, now_s + first_s, worker.rank

    def _schedule(self, worker: _Worker) -> None:
        worker.version += 1
        if worker.ends:
            left = worker.ends[0][0] - worker.progress
            self._push(worker.clock_s + max(0.0, left) / worker.speed.job_rates[worker.jobs], worker)

    def _end(self, worker: _Worker, now_s: float) -> None:
        worker.advance(now_s)
        ends_at, job, shared_s = heappop(worker.ends)
        worker.progress = ends_at  # what rounding has left over
        was_full = worker.jobs == worker.speed.slots
        worker.jobs -= 1
        work = self._work
        work.ended_s[job], work.share_s[job] = now_s, worker.shared_s - shared_s
        work.first_s[job] = min(work.first_s[job], now_s)
        self._left -= 1
        if any(map(self._waiting.may_give, range(worker.rank + 1))):
            self._claim(worker, now_s)
        is_full = worker.jobs == worker.speed.slots
        if was_full and not is_full:
            self._free[worker.rank].append(worker)
        elif is_full and not was_full:
            self._free[worker.rank].remove(worker)
        self._schedule(worker)

    def _poll(self, now_s: float) -> None:
        for rank in range(1, len(self._free)):
            if any(map(self._waiting.may_give, range(rank))):
                self._claim_all(rank, now_s)
        self._is_polling = any(self._waiting.waiting)
        if self._is_polling:
            self._push(now_s + self._poll_s, None)
