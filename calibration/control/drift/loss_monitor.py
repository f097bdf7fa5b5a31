"""Whether a promise still holds: what requests lose, bet against "at most alpha on average", label by label. Pure.

Every label is a loss between 0 and 1: whether a request lost too much, or its loss, clipped and scaled. Bets win where
it is above alpha. A change may come at any label, so another 1 is staked before each one: the evidence is what all of
them have come to, the mean over the bets of a Shiryaev-Roberts statistic (Shin, Ramdas and Rinaldo 2022: an
e-detector; Shekhar and Ramdas 2023). `_AT_START` is staked at once, since a limit is most likely wrong from its start.

**How rarely it errs.** Let R be the evidence, after n labels R(n), and alpha what each label loses at most on average,
whatever the labels before it were. Each factor of a bet, 1 + share * (loss - alpha) / alpha, is then at most 1 on
average, so R(n) is at most R(n - 1) + 1 on average, and R(n) - n is a supermartingale from `_AT_START` on. Stop it at
the alarm, where R reaches the bar, or at n labels, whichever is first: there R is at most `_AT_START` + n on average,
and never below 0. So by Markov's inequality the chance that it has reached the bar within n labels is at most
(`_AT_START` + n) / bar. With the bar (`_AT_START` + life) / level that is the level within `life` labels, and at most
k times the level within k times as many. How many labels are taken in at once changes nothing.

mapie's RiskMonitoring (Podkopaev and Ramdas 2022) is shown beside it: what the risk is at least, at all times at once.
It bounds the mean since its start, so a new one starts every so many labels, each with its part of the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.control.drift.drift_promise import Promise
from calibration.statistics import BETS, log_growth, log_growth_joined, log_mean

Numbers = NDArray[np.float64]
_AT_START = 250


class LossPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How losses are watched."""

    level: float = 0.005  # of any false alarm over `life` labels
    spacing: int = 250  # labels after which another of mapie's bounds starts
    life: int = 1000  # labels over which the level holds

    @property
    def level_each(self) -> float:
        """The part of the level of each of mapie's bounds."""
        return self.level / max(1, round(self.life / self.spacing))

    @property
    def log_bar(self) -> float:
        """The logarithm of the evidence at which the promise is broken."""
        return math.log((_AT_START + self.life) / self.level)


class LossAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that does not hold any more."""

    label: int  # at which it was seen, counted from 1
    since: int  # from which label on there is the most evidence of it
    risk: float  # since then, over all requests
    alpha: float


def log_capitals(losses: Numbers, alpha: float, before: Sequence[float] = ()) -> Numbers:
    """Return the logarithm of each bet's capital after each label; `before`: those before these labels, if any."""
    start = np.array(before) if len(before) else np.full(len(BETS), math.log(_AT_START))
    return log_growth_joined(losses - alpha, alpha, start)


def first_alarm(
    losses: Numbers, promise: Promise, plan: LossPlan, before: int = 0, capitals: Numbers | None = None
) -> LossAlarm | None:
    """Return the alarm that labels raise, or None.

    `before`: labels before these, of which nothing is known any more. `capitals`: of the bets after the last labels, as
    many as there are; those before them have raised none.
    """
    alpha = promise.among_labels
    capitals = log_capitals(losses, alpha) if capitals is None else capitals
    beyond = np.flatnonzero(log_mean(capitals) >= plan.log_bar)
    if not len(beyond):
        return None
    end = len(losses) - len(capitals) + int(beyond[0]) + 1
    start = _likeliest_start(losses[:end], alpha)
    return LossAlarm(
        label=before + end,
        since=before + start + 1,
        risk=promise.risk(float(losses[start:end].mean())),
        alpha=promise.alpha,
    )


def _likeliest_start(losses: Numbers, alpha: float) -> int:
    """Return before which label a 1 would have become the most: the fewest that the bets from there on win."""
    backwards = log_growth((losses - alpha)[::-1], alpha)
    return len(losses) - 1 - int(np.argmax(log_mean(backwards)))


def least_risk(losses: Numbers, promise: Promise, plan: LossPlan, before: int = 0) -> float:
    """Return what the risk is at least, by the earliest of mapie's bounds that has not looked at `life` labels yet."""
    begins = -(-(before + len(losses) - plan.life) // plan.spacing) * plan.spacing - before
    bounds = lower_bounds(losses[max(0, begins) :], plan.level_each)
    return promise.risk(float(bounds[-1]))


def lower_bounds(losses: Numbers, level: float) -> Numbers:
    """Return what the mean is at least, after each label, as mapie's RiskMonitoring has it.

    It is wrong anywhere with a chance of at most `level`. (RiskMonitoring itself takes labels of 0 and 1 only.)
    """
    from mapie.exchangeability_testing.bounds import conjugate_mixture_empirical_bernstein_bound

    bounds: Numbers = conjugate_mixture_empirical_bernstein_bound(losses, v_opt=1, alpha=level, bound_side="lower")
    return bounds
