"""Intervals and tests: bootstrap for means and ratios, Wilson for shares, Newcombe and Bonett-Price for two, McNemar.

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
    return _wilson(successes, count, _Z)


def newcombe(share: float, count: int, other: float, other_count: int) -> tuple[float, float]:
    """Return the interval of `share - other`, two independent shares (Newcombe 1998, method 10: hybrid of Wilson's)."""
    low, high = wilson(round(share * count), count)
    other_low, other_high = wilson(round(other * other_count), other_count)
    difference = share - other
    return (
        difference - math.hypot(share - low, other_high - other),
        difference + math.hypot(high - share, other - other_low),
    )


def paired_ratio(both: int, only_first: int, only_second: int) -> tuple[float, float]:
    """Return the interval of `first / second`, two shares of the same items (Bonett & Price 2006: hybrid of Wilson's).

    Sound where counts are few or nothing: a bootstrap cannot draw what it has not seen, and returns 0 to 0 for none
    right against one. The second one must have got something right.
    """
    first, second = both + only_first, both + only_second
    count = first + only_second  # items that neither got right say nothing about the ratio
    spread = math.sqrt((only_first + only_second + 2) / ((first + 1) * (second + 1)))
    spreads = [math.sqrt((1 - (right + 1) / (count + 2)) / (right + 1)) for right in (first, second)]
    quantile = _Z * spread / sum(spreads)
    low, high = _wilson(first, count, quantile)
    second_low, second_high = _wilson(second, count, quantile)
    return low / second_high, high / second_low


def paired_difference(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """Return the interval of `first - second`, two shares of the same items (Bonett & Price 2012: adjusted Wald)."""
    first, second = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    half = _Z * math.sqrt((first + second - (first - second) ** 2) / (count + 2))
    return max(-1.0, first - second - half), min(1.0, first - second + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two systems are equally good, from the items that only one got right."""
    count = only_first + only_second
    tail = sum(math.comb(count, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**count))


def _wilson(successes: int, count: int, quantile: float) -> tuple[float, float]:
    share, square = successes / count, quantile * quantile / count
    middle = (share + square / 2) / (1 + square)
    half = quantile * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _percentiles(values: Floats) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)
