"""What finite labels allow to promise of a policy's losses, as tests of hypotheses. Pure.

The risk is over all traffic of a policy: a request on the top tier loses 0. Two promises, named apart:

- `high-probability` (Learn-then-Test, Angelopoulos et al. 2021, in a fixed sequence): with confidence 1 - delta over
  the labels that were drawn, the risk is at most alpha. Candidates are tested from the safest one on, each at the full
  delta, up to the first that fails; so they must be fixed before their labels are looked at.
- `mean` (conformal risk control, Angelopoulos et al. 2022): the risk is at most alpha on average over such draws. Of
  one draw it says little: about four in ten are over it.

Losses are between 0 and 1. Shares are tested by the exact binomial tail (Clopper and Pearson 1934), other means by
betting (Waudby-Smith and Ramdas 2020).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

Losses = NDArray[np.float64]
# More labels than anybody makes: beyond it there is no number to tell.
MAX_LABELS = 1_000_000
_SHARE = re.compile(r"at most (?P<alpha>\S+) of requests lose more than (?P<threshold>\S+) \((?P<measure>.+)\)")


def share_in_words(alpha: float, threshold: float, measure: str) -> str:
    """Return what a policy's file says of its promise; `share_of_words` reads it."""
    return f"at most {alpha:.3g} of requests lose more than {threshold:g} ({measure})"


def share_of_words(words: str) -> tuple[float, float, str] | None:
    """Return alpha, threshold and measure of a promise in words; None where it is another one."""
    match = _SHARE.fullmatch(words)
    try:
        return (float(match["alpha"]), float(match["threshold"]), match["measure"]) if match else None
    except ValueError:
        return None


def share_p_value(losses: int, count: int, alpha: float) -> float:
    """Return the exact chance of at most so many losses where the true share is alpha: small means it is below."""
    if not 0 <= losses <= count:
        raise ValueError(f"losses must be between 0 and {count}, got {losses}")
    if losses == count:
        return 1.0
    return float(bdtr(losses, count, alpha))


def mean_p_value(losses: Losses, alpha: float, delta: float) -> float:
    """Return the p-value that the mean of losses between 0 and 1 is alpha or more, by betting against it.

    Whoever bets on lower losses multiplies a capital of 1 by 1 - bet * (loss - alpha) at each label; under the
    hypothesis that grows by a factor of x in at most 1 of x draws. Bets rest on the labels before them alone, and delta
    only sizes them. The labels must stand in an order drawn by chance.
    """
    if len(losses) == 0:
        return 1.0
    if losses.min() < 0 or losses.max() > 1:
        raise ValueError(f"losses must be between 0 and 1, got {losses.min():g} to {losses.max():g}")
    seen = np.arange(1, len(losses) + 1)
    means = (0.5 + np.cumsum(losses)) / (seen + 1)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (seen + 1)
    before = np.concatenate(([0.25], variances[:-1]))
    bets = np.minimum(1.0, np.sqrt(2 * math.log(1 / delta) / (len(losses) * before)))
    capital = np.cumsum(np.log1p(-bets * (losses - alpha)))
    return min(1.0, math.exp(-max(0.0, float(capital.max()))))


def p_value(losses: Losses, alpha: float, delta: float) -> float:
    """Return the p-value that the mean loss is alpha or more: exact where each loss is 0 or 1."""
    if np.isin(losses, (0.0, 1.0)).all():
        return share_p_value(int(losses.sum()), len(losses), alpha)
    return mean_p_value(losses, alpha, delta)


def high_probability(candidates: Iterable[Losses], alpha: float, delta: float) -> int | None:
    """Return the place of the last candidate that is proven, or None where not even the safest one is.

    A candidate is the loss of every label under one policy, the safest policy first. What stands behind the first
    failure is not looked at: that is what makes each test one at the full delta.
    """
    last = None
    for place, losses in enumerate(candidates):
        if p_value(losses, alpha, delta) > delta:
            break
        last = place
    return last


def on_average(candidates: Iterable[Losses], alpha: float) -> int | None:
    """Return the place of the last candidate up to which all keep alpha on average, or None where none does.

    One more label might lose everything, so it is counted as if it did. The theorem needs losses that only rise from
    candidate to candidate; where a label's falls (a middle tier loses more than the lowest one), its highest so far
    counts.
    """
    last, highest = None, np.zeros(1)
    for place, losses in enumerate(candidates):
        highest = np.maximum(highest, losses)
        if (highest.sum() + 1.0) / (len(losses) + 1) > alpha:
            break
        last = place
    return last


def average_labels_needed(losses: Losses, alpha: float) -> int | None:
    """Return the fewest labels, more than these, that keep alpha on average with the mean of these, or None."""
    if (mean := float(losses.mean())) >= alpha:
        return None
    return max(len(losses) + 1, math.ceil((1 - alpha) / (alpha - mean) - 1e-9))


def labels_needed(share: float, alpha: float, delta: float, beyond: int = 0) -> int | None:
    """Return the fewest labels, above `beyond`, that prove alpha where this share of them loses, or None."""
    if share >= alpha:
        return None
    if share == 0:
        return _fewest(0, beyond + 1, MAX_LABELS, alpha, delta)
    # The last count of labels that has no more than so many losses, and whether it proves alpha: more losses, more so.
    high = max(1, round(share * beyond))
    low = high - 1 if beyond else -1
    while not _proves(high, last := math.ceil((high + 1) / share) - 1, alpha, delta):
        if last >= MAX_LABELS:
            return None
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        if _proves(middle, math.ceil((middle + 1) / share) - 1, alpha, delta):
            high = middle
        else:
            low = middle
    return _fewest(high, max(beyond + 1, math.ceil(high / share)), math.ceil((high + 1) / share) - 1, alpha, delta)


def mean_labels_needed(losses: Losses, alpha: float, delta: float, beyond: int) -> int | None:
    """Return about how many labels, above `beyond`, prove alpha where losses are drawn from these ones; or None."""
    if losses.mean() >= alpha:
        return None
    drawn = np.random.default_rng(0).choice(losses, min(MAX_LABELS, 64 * (beyond + 1)))

    def proves(count: int) -> bool:
        return mean_p_value(drawn[:count], alpha, delta) <= delta

    low, high = beyond, 2 * (beyond + 1)
    while not proves(high):
        if high >= len(drawn):
            return None
        low, high = high, min(2 * high, len(drawn))
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high


def _proves(losses: int, count: int, alpha: float, delta: float) -> bool:
    return share_p_value(losses, count, alpha) <= delta


def _fewest(losses: int, first: int, last: int, alpha: float, delta: float) -> int:
    """Return the fewest labels from first to last that prove alpha with so many losses; the last one does."""
    while first < last:
        middle = (first + last) // 2
        if _proves(losses, middle, alpha, delta):
            last = middle
        else:
            first = middle + 1
    return last
