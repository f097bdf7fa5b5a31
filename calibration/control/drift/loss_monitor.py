"""Whether a promise still holds: the share of all requests that lose too much, against alpha, label by label. Pure.

mapie's RiskMonitoring (Podkopaev and Ramdas 2022) bounds the risk from below at all times at once. It bounds the mean
since its start, so a long good time would hide a bad one: a new one starts every so many labels, and looks at so many.
The level is divided by the starts within a life.
"""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """At most `alpha` of all requests lose more than `threshold` under `measure`, with confidence 1 - delta."""

    measure: str
    threshold: float
    alpha: float
    delta: float
    low_share: float = 1.0  # the share of all requests that the labels are drawn from; the rest lose nothing

    @property
    def among_labels(self) -> float:
        """The share of the labels that may lose more."""
        return min(1.0, self.alpha / self.low_share)


class LossPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How losses are watched."""

    level: float = 0.005  # of any false alarm over `life` labels
    spacing: int = 250  # labels after which another monitor starts
    life: int = 1000  # labels that each one looks at

    @property
    def level_each(self) -> float:
        return self.level / max(1, round(self.life / self.spacing))


class LossAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that does not hold any more."""

    label: int  # at which it was seen, counted from 1
    since: int  # from which label on the monitor had looked
    risk: float  # the share over the threshold since then, over all requests
    lower_bound: float
    alpha: float


def first_alarm(over: Numbers, promise: Promise, plan: LossPlan, before: int = 0) -> LossAlarm | None:
    """Return the first alarm of labels in their order, or None; `over`: whether each loses too much.

    `before`: labels before these, of which nothing is known any more.
    """
    alarms = []
    for start in range((-before) % plan.spacing, len(over), plan.spacing):
        part = over[start : start + plan.life]
        if not _may_be_beyond(part, promise.among_labels, plan.level_each):
            continue
        bounds = lower_bounds(part, promise.among_labels, plan.level_each)
        beyond = np.flatnonzero(bounds > promise.among_labels)
        if len(beyond):
            end = int(beyond[0]) + 1
            alarms.append(
                LossAlarm(
                    label=before + start + end,
                    since=before + start + 1,
                    risk=float(part[:end].mean()) * promise.low_share,
                    lower_bound=float(bounds[end - 1]) * promise.low_share,
                    alpha=promise.alpha,
                )
            )
    return min(alarms, key=lambda alarm: alarm.label, default=None)


def _may_be_beyond(over: Numbers, alpha: float, level: float) -> bool:
    """Tell whether the bound can pass alpha anywhere: mapie solves an equation for each label, which takes long.

    It passes where more are over than alpha of them by the boundary at the variance seen, which only grows with it.
    """
    excess = float(np.max(np.cumsum(over - alpha), initial=0.0))
    return excess > _boundary_without_variance(level)


@cache
def _boundary_without_variance(level: float) -> float:
    from mapie.exchangeability_testing.bounds import GammaExponentialMixtureBound

    boundary = GammaExponentialMixtureBound(v_opt=1, c=1, alpha_opt=level / 2)  # as RiskMonitoring has it
    return float(boundary(v=0.0, alpha=level / 2))


def lower_bounds(over: Numbers, alpha: float, level: float) -> Numbers:
    """Return what the risk is at least, after each label; wrong anywhere with a chance of at most `level`."""
    from mapie.exchangeability_testing import RiskMonitoring
    from mapie.risk_control import BinaryRisk

    is_over = BinaryRisk(_is_over, _always, higher_is_better=False)
    # Half of mapie's level is for a reference of its own, which a promise of alpha does not need.
    monitor = RiskMonitoring(is_over, test_level=2 * level, threshold=alpha, warn=False)
    if len(over):
        monitor.update(np.asarray(over, dtype=int), np.zeros(len(over), dtype=int))
    bounds: Numbers = monitor.online_risk_lower_bound_sequence_history
    return bounds


def _is_over(y_true: NDArray[np.int64], y_pred: NDArray[np.int64]) -> NDArray[np.bool_]:
    is_over: NDArray[np.bool_] = y_true != y_pred
    return is_over


def _always(y_true: NDArray[np.int64], y_pred: NDArray[np.int64]) -> NDArray[np.bool_]:
    del y_pred
    return np.ones(len(y_true), dtype=bool)
