"""Intervals and tests: bootstrap, Wilson for shares, Newcombe and Bonett-Price for two, McNemar, Holm for many at once.

And bets on a mean, whose capitals a hypothesis about it keeps from growing. Each bet stakes a fixed share of its
capital on every gain, and the mean of the bets' capitals is a mixture (Robbins 1970; for bounded means Waudby-Smith and
Ramdas 2020): no bet depends on what it is made on. Where no gain is above 0 on average, whatever was seen before it,
each capital is a nonnegative supermartingale, and so is their mean: from 1 on, it ever reaches x with a chance of 1 / x
at most (Ville 1939), however often it is looked at. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_RESAMPLES, _AT_ONCE = 2000, 50
_MANY = 5000
_SEED = 20261124  # the same data give the same interval
# Shares of the largest bet that can lose no more than the capital. Small ones pay where gains are small and many.
BETS: NDArray[np.float64] = np.geomspace(0.01, 0.95, 20)
_Z = 1.959963984540054  # the normal quantile of 95 % confidence


def bootstrap(units: Floats, statistic: Callable[..., Floats]) -> tuple[float, float]:
    """Return the interval of a statistic of column sums, resampling whole rows.

    A row is what may be taken as independent: a passage, not a token, because the tokens of a passage depend on each
    other. Columns of the reference and the tier in the same row make the comparison a paired one. `statistic` gets
    the sum of each column, for all resamples at once; where it is not finite (nothing to divide by), the resample is
    left out. Of few rows the percentiles are farther out than of many (_tail). One row says nothing of its likes:
    its interval is a point, and the gate asks for more.
    """
    count = len(units)
    generator, chances = np.random.default_rng(_SEED), np.full(count, 1 / count)
    # In parts: all at once would take 16 kB a row.
    sums = [generator.multinomial(count, chances, size=_AT_ONCE) @ units for _ in range(_RESAMPLES // _AT_ONCE)]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(*np.concatenate(sums).T)
    return percentiles(values[np.isfinite(values)], count)


def bootstrap_mean(values: Floats) -> tuple[float, float]:
    """Return the interval of the mean of these values, resampling them; of many, by the normal distribution."""
    if len(values) > _MANY:  # where the two are the same, but for minutes
        mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
        return mean - _Z * error, mean + _Z * error
    return bootstrap(np.column_stack([values, np.ones(len(values))]), lambda total, count: total / count)


def bootstrap_quantile(units: Floats, quantile: float) -> tuple[float, float]:
    """Return the interval of a quantile of all values, resampling whole rows, as above."""
    drawn = np.random.default_rng(_SEED).integers(0, len(units), size=(_RESAMPLES, len(units)))
    return percentiles(np.quantile(units[drawn], quantile, axis=(1, 2)), len(units))


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share: sound for few trials and for shares near 0 and 1."""
    return _wilson(successes, count, _Z)


def percentiles(values: Floats, count: int) -> tuple[float, float]:
    """Return the interval of a figure from its resamples, of so many units; of few it is wider (_tail)."""
    if not len(values):
        return math.nan, math.nan
    tail = _tail(count)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


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


def chance_of(difference: float, half: float) -> float:
    """Return the one-sided p-value of a difference, from the half of its 95 % interval that is towards 0.

    An interval without a width is of a single row, which proves nothing.
    """
    return 1.0 if half <= 0 else NormalDist().cdf(-_Z * difference / half)


def beyond_chance(p_values: Mapping[str, float], level: float) -> set[str]:
    """Return those that are significant together at this level (Holm 1979: the k least first, against level / rest)."""
    significant = set()
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        if p_values[name] >= level / (len(p_values) - rank):
            break
        significant.add(name)
    return significant


def _wilson(successes: int, count: int, quantile: float) -> tuple[float, float]:
    share, square = successes / count, quantile * quantile / count
    middle = (share + square / 2) / (1 + square)
    half = quantile * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _tail(count: int) -> float:
    """Return the share of resamples beyond each end: less of few rows (Hesterberg 2015: expanded percentiles).

    Resamples of n rows vary by (n - 1) / n less than new rows would, and Student's t is wider than the normal
    distribution; its quantile is that of Cornish and Fisher's expansion.
    """
    freedom = max(1, count - 1)
    terms = (
        (_Z**3 + _Z) / 4,
        (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96,
        (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384,
    )
    student = _Z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    return NormalDist().cdf(-student * math.sqrt((freedom + 1) / freedom))


def log_growth(gains: NDArray[np.float64], largest_loss: float) -> NDArray[np.float64]:
    """Return the logarithm of what each bet has made of 1 after each gain; no gain is below -largest_loss.

    The last axis of gains is their order, others are runs by themselves; bets are the last axis of what is returned.
    """
    return np.cumsum(np.log1p(gains[..., None] / largest_loss * BETS), axis=-2)


def log_growth_joined(
    gains: NDArray[np.float64], largest_loss: float, before: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the logarithm of each bet's capital after each gain, where before each gain another 1 is added to it.

    So the capital is the sum of what a bet makes of 1 from each gain on, a Shiryaev-Roberts statistic: it grows after
    a change, whenever that is. `before`: the logarithms of the capitals before these gains.
    """
    growth = log_growth(gains, largest_loss)
    # (... (before + 1) * factor + 1) * factor: over what all factors make of 1, each 1 counts by the factors before it.
    joining = np.vstack([before, np.zeros_like(before), -growth[:-1]])
    joined: NDArray[np.float64] = growth + np.logaddexp.accumulate(joining, axis=0)[1 : len(growth) + 1]
    return joined


def log_mean(capitals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the mean capital of all bets, of the logarithms of each."""
    largest = capitals.max(axis=-1, keepdims=True, initial=-np.inf)
    mean: NDArray[np.float64] = largest[..., 0] + np.log(np.exp(capitals - largest).mean(axis=-1))
    return mean
