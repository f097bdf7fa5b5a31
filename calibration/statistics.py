"""Intervals and tests: bootstrap for means and ratios, Wilson for shares, Newcombe for their differences, McNemar.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_CONFIDENCE = 0.95
_RESAMPLES = 2000
_SEED = 20261124  # the same data give the same interval
_Z = 1.959963984540054  # the normal quantile of _CONFIDENCE


def bootstrap(units: Floats, statistic: Callable[..., Floats]) -> tuple[float, float]:
    """Return the interval of a statistic of column sums, resampling whole rows.

    A row is what may be taken as independent: a passage, not a token, because the tokens of a passage depend on each
    other. Columns of the reference and the tier in the same row make the comparison a paired one. `statistic` gets
    the sum of each column, for all resamples at once; where it is not finite (nothing to divide by), the resample is
    left out.
    """
    count = len(units)
    drawn = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(*(drawn @ units).T)
    return _percentiles(values[np.isfinite(values)])


def bootstrap_quantile(units: Floats, quantile: float) -> tuple[float, float]:
    """Return the interval of a quantile of all values, resampling whole rows, as above."""
    drawn = np.random.default_rng(_SEED).integers(0, len(units), size=(_RESAMPLES, len(units)))
    return _percentiles(np.quantile(units[drawn], quantile, axis=(1, 2)))


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share: sound for few trials and for shares near 0 and 1."""
    share, square = successes / count, _Z * _Z / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(share: float, count: int, other: float, other_count: int) -> tuple[float, float]:
    """Return the interval of `share - other`, two independent shares (Newcombe 1998, method 10: hybrid of Wilson's)."""
    low, high = wilson(round(share * count), count)
    other_low, other_high = wilson(round(other * other_count), other_count)
    difference = share - other
    return (
        difference - math.hypot(share - low, other_high - other),
        difference + math.hypot(high - share, other - other_low),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two systems are equally good, from the items that only one got right."""
    count = only_first + only_second
    tail = sum(math.comb(count, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**count))


def _percentiles(values: Floats) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)
