"""A sequential test by betting, which may be looked at after every pair and stopped at any. Pure.

Each pair is a difference between -1 and 1: the candidate's loss less the present one's, on the same prompt. Two
gamblers bet a capital of 1, each against one hypothesis about the mean difference and a margin:

- `worse` bets against "the candidate is worse by at most the margin";
- `fine` bets against "the candidate is worse by the margin or more".

Under its hypothesis a capital ever reaches 1 / alpha with a chance of alpha at most, however often it is looked at
(calibration/statistics.py). The state is the differences alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from calibration.statistics import BETS, log_growth, log_mean

Numbers = NDArray[np.float64]
_PRECISION = 1e-4


class Decision(StrEnum):
    """What the test says of a candidate."""

    WORSE = "worse"  # by more than the margin
    FINE = "fine"  # worse by less than the margin, or better
    UNDECIDED = "undecided"


def log_capitals(differences: Numbers, margin: float) -> tuple[Numbers, Numbers]:
    """Return the logarithms of both capitals, `worse` and `fine`, after each pair; of many canaries: a row for each."""
    if differences.size and not (np.abs(differences) <= 1).all():
        raise ValueError(f"differences must be between -1 and 1, got {differences.min():g} to {differences.max():g}")
    if not -1 < margin < 1:
        raise ValueError(f"margin must be between -1 and 1, got {margin:g}")
    worse, fine = log_growth(differences - margin, 1 + margin), log_growth(margin - differences, 1 - margin)
    return log_mean(worse), log_mean(fine)


def decide(differences: Numbers, margin: float, alpha: float) -> tuple[Decision, int]:
    """Return what the first capital that reached 1 / alpha says, and after how many pairs; else how many there are."""
    worse, fine = (float(count) for count in first_pairs(differences, margin, alpha))
    if math.inf == worse == fine:
        return Decision.UNDECIDED, len(differences)
    # Both at one pair: neither could be trusted more, and what serves now is known.
    return (Decision.WORSE, int(worse)) if worse <= fine else (Decision.FINE, int(fine))


def first_pairs(differences: Numbers, margin: float, alpha: float) -> tuple[Numbers, Numbers]:
    """Return after how many pairs each capital has reached 1 / alpha, `worse` and `fine`; of many canaries as above."""
    bar = math.log(1 / alpha)
    reached = [capital >= bar for capital in log_capitals(differences, margin)]
    worse, fine = (
        np.where(is_over.any(axis=-1), is_over.argmax(axis=-1) + 1.0, np.inf) if is_over.size else np.array(np.inf)
        for is_over in reached
    )
    return worse, fine


def turned_worse(differences: Numbers, margin: float, alpha: float) -> int | None:
    """Return after how many pairs a candidate that was fine is found worse; None: it is not.

    From each pair on another gambler begins, with a part of one capital: after a long time in which the bet was lost,
    the last ones still have theirs. The sum of all is a capital as above (Shin, Ramdas and Rinaldo 2022).
    """
    largest_loss, capitals = 1 + margin, np.zeros(len(BETS))
    for index, gain in enumerate((differences - margin) / largest_loss):
        begun = index + 1
        capitals = (capitals + 1 / (begun * (begun + 1))) * (1 + BETS * gain)  # these parts sum to 1
        if capitals.mean() + 1 / (begun + 1) >= 1 / alpha:
            return begun
    return None


def interval(differences: Numbers, alpha: float) -> tuple[float, float]:
    """Return between which margins the mean difference is, with confidence 1 - alpha, after any number of pairs."""
    bar = math.log(2 / alpha)

    def is_over(margin: float) -> bool:
        return bool((log_capitals(differences, margin)[0] >= bar).any())

    def is_under(margin: float) -> bool:
        return bool((log_capitals(differences, margin)[1] >= bar).any())

    return _last(is_over, -1.0, 1.0), _last(is_under, 1.0, -1.0)


def _last(is_ruled_out: Callable[[float], bool], start: float, end: float) -> float:
    """Return up to where, from one end on, means are ruled out: further ones are less so."""
    inner = start + math.copysign(_PRECISION, end - start)
    if not is_ruled_out(inner):
        return start
    ruled_out, kept = inner, end - math.copysign(_PRECISION, end - start)
    while abs(kept - ruled_out) > _PRECISION:
        middle = (ruled_out + kept) / 2
        ruled_out, kept = (middle, kept) if is_ruled_out(middle) else (ruled_out, middle)
    return ruled_out
