"""The history of a service: points of three resolutions, what a point counts, and how points become one. Pure.

A coarser point is made anew of the finer ones whenever one of those comes: it says what is known so far, whoever wrote
them. Of depths, jobs in flight, slots and costs a point has the mean of its samples, of ages, waits, dead letters and
memory the maximum, of live workers the minimum, of jobs, tokens and overflow the sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from bitladder.overview.shape import TierOverview
from bitladder.queue.calls.worker_report import WorkerReport
from bitladder.queue.untrusted import MAX_NUMBER

T = TypeVar("T", int, float)


class Resolution(NamedTuple):
    """One series: a point for so many seconds, and how many of them are kept."""

    step_s: int
    points: int

    @property
    def span_s(self) -> int:
        return self.step_s * self.points


# An hour, a day and thirty days; each one's points are made of the one before.
RESOLUTIONS = (Resolution(10, 360), Resolution(60, 1440), Resolution(900, 2880))
# Counts that are older say nothing about the last ten seconds.
_MAX_PAUSE_S = 30
# A worker that did not report for so long begins anew.
_FORGOTTEN_S = 600
_Amount = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
_Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_Overflow = dict[str, _Count]


class TierPoint(msgspec.Struct, frozen=True, array_like=True):
    """One tier in one point; in Redis without names, in this order."""

    depth: _Amount
    depth_max: _Count
    oldest_age_s: _Amount
    expected_wait_s: _Amount | None
    in_flight: _Amount
    workers: _Count
    slots: _Amount
    cost_per_hour: _Amount
    jobs: _Count | None  # None: not known, here and below
    tokens: _Count | None
    overflow_in: _Overflow


class Point(msgspec.Struct, frozen=True, array_like=True):
    """The service in one span of time."""

    at: _Count  # its begin, seconds since 1970
    samples: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    tiers: dict[str, dict[str, TierPoint]]  # by model and tier
    dead_letters: _Count
    memory_share: _Amount | None


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """What one worker had counted, and when it said so."""

    jobs: _Count
    tokens: _Count
    overflow: _Overflow
    at: _Amount


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What all workers had counted at the last point."""

    at: _Amount
    workers: dict[str, Counted]


def slot_of(at: float, step_s: int) -> int:
    """Return when the span began that this moment lies in."""
    return int(at) // step_s * step_s


def next_counts(before: Counts | None, at: float, reports: Mapping[str, WorkerReport]) -> Counts:
    """Return what is counted from at the next point; of workers that are silent for a moment, what they said before."""
    silent = before.workers if before else {}
    kept = {name: counted for name, counted in silent.items() if at - _FORGOTTEN_S < counted.at <= at}
    said_now = {
        name: Counted(report.jobs, report.tokens, dict(report.overflow), at) for name, report in reports.items()
    }
    return Counts(at, kept | said_now)


def tier_point(tier: TierOverview, reports: Mapping[str, WorkerReport], before: Counts | None, at: float) -> TierPoint:
    """Return the point of one sample; jobs, tokens and overflow are those since the point before."""
    is_known = before is not None and 0 < at - before.at <= _MAX_PAUSE_S
    earlier = before.workers if before else {}
    jobs = tokens = 0
    overflow: dict[str, int] = {}
    for name, report in reports.items():
        last = earlier.get(name, Counted(0, 0, {}, 0))
        jobs += max(0, report.jobs - last.jobs)
        tokens += max(0, report.tokens - last.tokens)
        for origin, count in report.overflow.items():
            overflow[origin] = overflow.get(origin, 0) + max(0, count - last.overflow.get(origin, 0))
    return TierPoint(
        depth=tier.depth,
        depth_max=tier.depth,
        oldest_age_s=round(tier.oldest_age_s or 0.0, 1),
        expected_wait_s=None if tier.expected_wait_s is None else round(tier.expected_wait_s, 1),
        in_flight=tier.in_flight,
        workers=tier.workers,
        slots=tier.slots,
        cost_per_hour=tier.cost_per_hour,
        jobs=jobs if is_known else None,
        tokens=tokens if is_known else None,
        overflow_in={origin: count for origin, count in overflow.items() if count} if is_known else {},
    )


def roll_up(points: Sequence[Point], at: int) -> Point:
    """Return one point of several: those of its span that there are."""
    names = dict.fromkeys((model, tier) for point in points for model, tiers in point.tiers.items() for tier in tiers)
    tiers: dict[str, dict[str, TierPoint]] = {}
    for model, tier in names:
        parts = [(point.samples, point.tiers[model][tier]) for point in points if tier in point.tiers.get(model, {})]
        tiers.setdefault(model, {})[tier] = _roll_up_tier(parts)
    return Point(
        at=at,
        samples=sum(point.samples for point in points),
        tiers=tiers,
        dead_letters=max(point.dead_letters for point in points),
        memory_share=_of_known(max, (point.memory_share for point in points)),
    )


def _roll_up_tier(parts: Sequence[tuple[int, TierPoint]]) -> TierPoint:
    overflow: dict[str, int] = {}
    for _, part in parts:
        for origin, count in part.overflow_in.items():
            overflow[origin] = overflow.get(origin, 0) + count
    return TierPoint(
        depth=_mean((weight, part.depth) for weight, part in parts),
        depth_max=max(part.depth_max for _, part in parts),
        oldest_age_s=max(part.oldest_age_s for _, part in parts),
        expected_wait_s=_of_known(max, (part.expected_wait_s for _, part in parts)),
        in_flight=_mean((weight, part.in_flight) for weight, part in parts),
        workers=min(part.workers for _, part in parts),
        slots=_mean((weight, part.slots) for weight, part in parts),
        cost_per_hour=_mean((weight, part.cost_per_hour) for weight, part in parts),
        jobs=_of_known(sum, (part.jobs for _, part in parts)),
        tokens=_of_known(sum, (part.tokens for _, part in parts)),
        overflow_in=overflow,
    )


def _mean(weighted: Iterable[tuple[int, float]]) -> float:
    pairs = list(weighted)
    return round(sum(weight * value for weight, value in pairs) / sum(weight for weight, _ in pairs), 2)


def _of_known(combine: Callable[[Sequence[T]], T], values: Iterable[T | None]) -> T | None:
    known = [value for value in values if value is not None]
    return combine(known) if known else None


_RANGE = re.compile(r"([1-9]\d{0,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_RANGE_S = RESOLUTIONS[-1].span_s


def read_range(text: str) -> int | None:
    """Read a range such as 90m, 24h or 30d as seconds; None where it is none, or is longer than what is kept."""
    match = _RANGE.fullmatch(text)
    range_s = int(match[1]) * _UNITS[match[2]] if match else 0
    return range_s if 60 <= range_s <= MAX_RANGE_S else None


def resolution_for(range_s: int) -> Resolution:
    """Return the finest resolution that is kept for so long."""
    return next(resolution for resolution in RESOLUTIONS if resolution.span_s >= range_s)
