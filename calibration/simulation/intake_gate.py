"""Admission as an intake decides it, by its own functions: whether an answer can come in time.

One intake, whose sample of the queues is as old as an intake's. Requests with a deadline have that as latency budget,
and others have none. Queues that are full refuse by themselves (submit.lua).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.forecast import Forecast, excess_s, forecast, wait_at
from bitladder.routing.rates import Load, Reading, TierRates
from bitladder.settings.sections import Settings
from calibration.simulation.simulated_work import Work

# As in dispatcher/admission/admission.py: between two samples, and while a backlog grows whose rate is not known yet.
_SAMPLE_S, _HURRIED_S = 1.0, 0.25


class _Depths(Protocol):
    @property
    def depths(self) -> Sequence[Sequence[int]]:
        """How many jobs wait, by rank and lane."""

    def jobs_before(self, job: int) -> int | None:
        """Return how many jobs a new one of its tenant waits for; None where nobody shares its lane."""


class Admission:
    """Admits or refuses the jobs of one intake."""

    def __init__(self, settings: Settings, model: str, workers: Sequence[int], work: Work, waiting: _Depths) -> None:
        tiers, ladder = settings.models[model].tiers, settings.models[model].ladder
        self._work, self._waiting, self._settings = work, waiting, settings
        self._is_forecasting = settings.intake.admission and bool(work.deadline_s)
        self._live = [sum(workers[rank:]) for rank in range(len(ladder))]
        self._slots = [count * tier.slots for count, tier in zip(workers, tiers, strict=True)]
        lanes = len(waiting.depths[0])
        self._rates = [TierRates() for _ in ladder]
        self._loads: list[Load] = []
        self._in_flight, self._served, self._admitted = ([[0] * lanes for _ in ladder] for _ in range(3))
        self._sample_s = 0.0

    def refuses(self, job: int, now_s: float) -> bool:
        """Return whether a job is refused with 429; else it counts as admitted."""
        rank, lane = self._work.rank[job], self._work.lane[job]
        # A job without a deadline is never late.
        if self._is_forecasting and self._loads and self._work.deadline_s[job] and self._is_late(job, now_s):
            return True
        self._admitted[rank][lane] += 1
        return False

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not any(map(any, self._in_flight))

    def claimed(self, jobs: Sequence[int]) -> None:
        for job in jobs:
            self._in_flight[self._work.rank[job]][self._work.lane[job]] += 1

    def ended(self, job: int, *, is_served: bool) -> None:
        rank, lane = self._work.rank[job], self._work.lane[job]
        self._in_flight[rank][lane] -= 1
        self._served[rank][lane] += is_served

    def sample(self, now_s: float) -> float:
        """Look at the queues; return after how many seconds the next look is due."""
        self._sample_s = now_s
        readings = [
            Reading(
                at_s=now_s,
                depth=tuple(depth),
                in_flight=tuple(self._in_flight[rank]),
                served=tuple(self._served[rank]),
                live=self._live[rank],
                slots=self._slots[rank],
            )
            for rank, depth in enumerate(self._waiting.depths)
        ]
        columns = zip(self._rates, readings, self._admitted, strict=True)
        self._loads = [rates.add(reading, tuple(admitted)) for rates, reading, admitted in columns]
        self._admitted = [[0] * len(counts) for counts in self._admitted]
        lacks_rate = any(load.rate is None and sum(load.depth) > load.short for load in self._loads)
        return _HURRIED_S if lacks_rate else _SAMPLE_S

    def _is_late(self, job: int, now_s: float) -> bool:
        budget = LatencyBudget(whole_s=self._work.deadline_s[job])
        rank, lane = self._work.rank[job], self._work.lane[job]
        load, admitted = self._loads[rank], self._admitted[rank]
        if load.rate is None or sum(load.depth) + sum(admitted) <= load.short:
            return False
        expected = forecast(load, lane, admitted, now_s - self._sample_s)
        if expected is None or expected.ahead <= load.short or excess_s(expected, budget) <= 0:
            return False
        return not self._is_in_time_by_turns(job, load, budget)

    def _is_in_time_by_turns(self, job: int, load: Load, budget: LatencyBudget) -> bool:
        """Return whether a tenant with little waiting is served in time, however much others have (second_look.py)."""
        before = self._waiting.jobs_before(job) if self._settings.auth.keys else None
        wait_s = None if before is None else wait_at(load, self._work.lane[job], before)
        if before is None or load.rate is None or wait_s is None:
            return False
        expected = Forecast(ahead=before, rate=load.rate, wait_s=wait_s, answer_s=wait_s + load.residence_s)
        return excess_s(expected, budget) <= 0
