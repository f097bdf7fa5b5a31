"""Figures with intervals, accuracy recoveries and comparisons with the reference. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.artifacts.evaluation_report import Comparison, Estimate
from calibration.statistics import Floats, bootstrap, mcnemar, wilson


@dataclass(frozen=True, slots=True)
class TierFigures:
    """The figures of one checkpoint in the report."""

    metrics: dict[str, Estimate] = field(default_factory=dict)
    recovery: dict[str, Estimate] = field(default_factory=dict)
    compared: dict[str, Comparison] = field(default_factory=dict)

    def __or__(self, other: TierFigures) -> TierFigures:
        return TierFigures(self.metrics | other.metrics, self.recovery | other.recovery, self.compared | other.compared)


def share_figures(name: str, tier: Sequence[bool], reference: Sequence[bool] | None) -> TierFigures:
    """Return the share of right answers with Wilson's interval; against the reference item by item."""
    count, right = len(tier), sum(tier)
    metrics = {name: make_estimate(right / count, *wilson(right, count), count)}
    if reference is None:
        return TierFigures(metrics)
    rows = np.array(list(zip(tier, reference, strict=True)), dtype=float)
    difference = bootstrap_estimate(rows, lambda passed, base: (passed - base) / count, count)
    better = sum(passed and not base for passed, base in zip(tier, reference, strict=True))
    worse = sum(base and not passed for passed, base in zip(tier, reference, strict=True))
    comparison = Comparison(
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        better=better,
        worse=worse,
        p=mcnemar(better, worse),
    )
    kept = {name: bootstrap_estimate(rows, lambda passed, base: passed / base, count)} if any(reference) else {}
    return TierFigures(metrics, kept, {name: comparison})


def bootstrap_estimate(rows: Floats, statistic: Callable[..., Floats], count: int) -> Estimate:
    """Return a statistic of the sums of the columns, with its interval (stats.bootstrap)."""
    return make_estimate(float(statistic(*rows.sum(axis=0))), *bootstrap(rows, statistic), count)


def make_estimate(value: float, low: float, high: float, count: int) -> Estimate:
    """Return an estimate whose interval holds its value: a percentile interval of few items may miss it or be NaN."""
    low, high = (value if math.isnan(end) else end for end in (low, high))
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=count)
