"""Figures with intervals, accuracy recoveries and comparisons with the reference. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.artifacts.evaluation_report import Comparison, Estimate
from calibration.statistics import Floats, bootstrap, mcnemar, paired_difference, paired_ratio, wilson


@dataclass(frozen=True, slots=True)
class TierFigures:
    """The figures of one checkpoint in the report."""

    metrics: dict[str, Estimate] = field(default_factory=dict)
    recovery: dict[str, Estimate] = field(default_factory=dict)
    compared: dict[str, Comparison] = field(default_factory=dict)

    def __or__(self, other: TierFigures) -> TierFigures:
        return TierFigures(self.metrics | other.metrics, self.recovery | other.recovery, self.compared | other.compared)


def share_figures(name: str, tier: Sequence[bool], reference: Sequence[bool] | None) -> TierFigures:
    """Return the share of right answers with its interval; against the reference item by item."""
    count, right = len(tier), sum(tier)
    metrics = {name: make_estimate(right / count, *wilson(right, count), count)}
    if reference is None:
        return TierFigures(metrics)
    pairs = Counter(zip(map(bool, tier), map(bool, reference), strict=True))
    both, better, worse = pairs[True, True], pairs[True, False], pairs[False, True]
    ends = paired_difference(better, worse, count)
    difference = make_estimate((better - worse) / count, *ends, count)
    comparison = Comparison(
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        better=better,
        worse=worse,
        p=mcnemar(better, worse),
    )
    if not both + worse:
        return TierFigures(metrics, {}, {name: comparison})
    kept = make_estimate(right / (both + worse), *paired_ratio(both, better, worse), count)
    return TierFigures(metrics, {name: kept}, {name: comparison})


def bootstrap_estimate(rows: Floats, statistic: Callable[..., Floats], count: int) -> Estimate:
    """Return a statistic of the sums of the columns, with its interval (stats.bootstrap)."""
    return make_estimate(float(statistic(*rows.sum(axis=0))), *bootstrap(rows, statistic), count)


def mean_difference(more: Floats, counts: Floats) -> Comparison:
    """Return the difference of two checkpoints per token, from that of each passage or answer; these are resampled."""
    columns = np.stack([more, counts], axis=1)
    figure = bootstrap_estimate(columns, lambda total, count: total / count, int(counts.sum()))
    return Comparison(difference=figure.value, low=figure.low, high=figure.high)


def make_estimate(value: float, low: float, high: float, count: int) -> Estimate:
    """Return an estimate whose interval holds its value: a percentile interval of few items may miss it or be NaN."""
    low, high = (value if math.isnan(end) else end for end in (low, high))
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=count)
