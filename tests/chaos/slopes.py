"""How fast a series grows in an hour, how sure that is, and whether it is too much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from statistics import median
from typing import TypeVar

T = TypeVar("T")
HOUR_S = 3600.0
# Neighbours resemble each other, so they are no independent samples: what is judged are medians of this many stretches.
STRETCHES = 40
# Two-sided, 99 %: a run judges more than fifty series.
SIGMAS = 2.576


class Verdict(StrEnum):
    """What a slope and its noise say of a limit."""

    FLAT = "flat"  # surely less than the limit
    GROWS = "grows"  # surely more
    UNCLEAR = "unclear"  # a longer run would tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Growth per hour, with a confidence interval of 99 %."""

    level: float  # the median of the whole series
    per_h: float
    low: float
    high: float
    limit: float

    @property
    def verdict(self) -> Verdict:
        if self.low > self.limit:
            return Verdict.GROWS
        return Verdict.FLAT if self.high < self.limit else Verdict.UNCLEAR


def slope(times_s: Sequence[float], values: Sequence[float], limit: float, share: float = 0.0) -> Slope:
    """Return the slope of Theil and Sen; the limit is `limit`, or so much of the level where that is more."""
    count = min(STRETCHES, len(values))
    if count < 4:
        raise ValueError(f"a slope needs 4 samples, got {len(values)}")
    times, middles = [median(part) for part in _parts(times_s, count)], [median(part) for part in _parts(values, count)]
    pairs = combinations(zip(times, middles, strict=True), 2)
    slopes = sorted((after - before) / (then - at) * HOUR_S for (at, before), (then, after) in pairs)
    # Sen (1968): the ranks that bound the interval follow from the variance of Kendall's statistic.
    spread = SIGMAS * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    level = median(values)
    return Slope(
        level=level, per_h=median(slopes), low=slopes[low], high=slopes[-1 - low], limit=max(limit, share * level)
    )


def _parts(all_: Sequence[T], count: int) -> list[Sequence[T]]:
    bounds = [round(part * len(all_) / count) for part in range(count + 1)]
    return [all_[begin:end] for begin, end in pairwise(bounds)]
