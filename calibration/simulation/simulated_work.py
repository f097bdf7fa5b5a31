"""The jobs of a simulation, and the workers that they share.

At every moment the jobs of a worker each get its curve's rate for so many jobs. So a worker keeps how much each of its
jobs was given since it was last idle (`progress`); a job ends when that has grown by what it needs.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heapify, heappop, heappush


class End(IntEnum):
    """What became of a job."""

    NONE = 0  # not yet ended
    SERVED = 1
    REFUSED = 2  # by admission, or because a queue or its tenant's limit was full: 429
    EXPIRED = 3  # its deadline passed while it waited
    ABORTED = 4  # its deadline passed while it ran


@dataclass(slots=True, kw_only=True)
class Work:
    """Jobs in the order of their coming, one value each; the lower half is what came of them."""

    at_s: Sequence[float]
    rank: Sequence[int]  # of the floor
    lane: MutableSequence[int]
    input_tokens: Sequence[float]
    output_tokens: Sequence[float]
    deadline_s: Sequence[float] = ()  # from their coming; 0: none
    begun_s: array[float] = field(default_factory=lambda: array("d"))
    first_s: array[float] = field(default_factory=lambda: array("d"))  # when its first token came
    ended_s: array[float] = field(default_factory=lambda: array("d"))
    share_s: array[float] = field(default_factory=lambda: array("d"))  # of its workers' time, shared at every moment
    served: array[int] = field(default_factory=lambda: array("b"))  # rank
    ends: array[int] = field(default_factory=lambda: array("b"))
    over_budget: int | None = None  # of those that were refused: their key's budget was used up; None: no key has one

    def __post_init__(self) -> None:
        count = len(self.at_s)
        self.begun_s, self.first_s, self.ended_s = (array("d", [math.nan]) * count for _ in range(3))
        self.share_s = array("d", [0.0]) * count
        self.served, self.ends = array("b", [-1]) * count, array("b", [End.NONE]) * count


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast the workers of one tier are, by the jobs that they have at once."""

    slots: int
    job_rates: Sequence[float]
    first_token_s: Sequence[float]
    input_tokens: float | None  # of the prompts whose times to the first token these are
    has_reserve: bool = False  # then it always has room, and looks again soon


class Worker:
    """One worker: its jobs, and how far each has come."""

    __slots__ = ("clock_s", "ends", "is_waiting", "jobs", "number", "progress", "rank", "shared_s", "speed", "version")

    def __init__(self, number: int, rank: int, speed: Speed) -> None:
        self.number, self.rank, self.speed = number, rank, speed
        self.jobs, self.version = 0, 0
        self.is_waiting = False  # its last claim found less than it had room for: it looks again when it is woken
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

    def begin(self, work: Work, job: int, now_s: float) -> None:
        speed = self.speed
        self.jobs += 1
        first_s = speed.first_token_s[self.jobs]
        if speed.input_tokens:
            first_s *= work.input_tokens[job] / speed.input_tokens
        # The first token's time is work too, at the rate of now: who comes meanwhile slows it down.
        tokens = first_s * speed.job_rates[self.jobs] + max(0.0, work.output_tokens[job] - 1)
        heappush(self.ends, (self.progress + tokens, job, self.shared_s))
        work.begun_s[job], work.first_s[job], work.served[job] = now_s, now_s + first_s, self.rank

    def end_next(self, work: Work, now_s: float) -> int:
        """End the job that is due, and return it."""
        self.advance(now_s)
        ends_at, job, shared_s = heappop(self.ends)
        self.progress = ends_at  # what rounding has left over
        self._leave(work, job, shared_s, now_s)
        return job

    def abort(self, work: Work, job: int, now_s: float) -> None:
        """End a job before its end."""
        self.advance(now_s)
        place = next(place for place, (_, running, _) in enumerate(self.ends) if running == job)
        _, _, shared_s = self.ends.pop(place)
        heapify(self.ends)
        self._leave(work, job, shared_s, now_s)

    def _leave(self, work: Work, job: int, shared_s: float, now_s: float) -> None:
        self.jobs -= 1
        work.ended_s[job] = now_s
        work.share_s[job] += self.shared_s - shared_s
        work.first_s[job] = min(work.first_s[job], now_s)
