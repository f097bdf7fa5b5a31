"""From what was measured to figures with intervals, recoveries and comparisons with the reference. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.artifacts.metrics import recovery
from calibration.artifacts.report import Comparison, Figure
from calibration.evaluate.distributions import Distributions, agreement, divergence
from calibration.evaluate.measures import Paced, Passages
from calibration.evaluate.stats import Floats, bootstrap, bootstrap_quantile, mcnemar, wilson

_P50, _P99 = 0.5, 0.99
_MAX_NATS = 600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What the report says of one checkpoint."""

    metrics: dict[str, Figure] = field(default_factory=dict)
    recovery: dict[str, Figure] = field(default_factory=dict)
    compared: dict[str, Comparison] = field(default_factory=dict)

    def __or__(self, other: Figures) -> Figures:
        return Figures(self.metrics | other.metrics, self.recovery | other.recovery, self.compared | other.compared)


def text_figures(kind: str, tier: Passages, reference: Passages | None) -> Figures:
    """Return perplexity; and against the reference, mean divergence, agreement, and the share of perplexity kept."""
    name, count = f"perplexity.{kind}", sum(len(one.actual) for one in tier.predictions)
    losses = np.array([(len(one.actual), _loss(one)) for one in tier.predictions])
    metrics = {name: _estimate(losses, lambda tokens, loss: _exp(loss / tokens), count)}
    if reference is None:
        return Figures(metrics)
    pairs = zip(reference.predictions, tier.predictions, strict=True)
    units = np.array([_compared(*pair) for pair in pairs])
    same = _estimate(units, lambda tokens, own, its, apart, same: same / tokens, count)
    apart = _estimate(units, lambda tokens, own, its, apart, same: apart / tokens, count)
    kept = _estimate(units, lambda tokens, own, its, apart, same: _exp((its - own) / tokens), count)
    more = _estimate(units, lambda tokens, own, its, apart, same: _exp(own / tokens) - _exp(its / tokens), count)
    metrics |= {f"kl_mean.{kind}": apart, f"top1.{kind}": same}
    return Figures(metrics, {name: kept, f"top1.{kind}": same}, {name: _difference(more)})


def share_figures(name: str, tier: Sequence[bool], reference: Sequence[bool] | None) -> Figures:
    """Return the share of right answers with Wilson's interval; against the reference item by item."""
    right = sum(tier)
    low, high = wilson(right, len(tier))
    metrics = {name: _figure(right / len(tier), low, high, len(tier))}
    if reference is None:
        return Figures(metrics)
    units = np.array(list(zip(tier, reference, strict=True)), dtype=float)
    more = _estimate(units, lambda own, its: (own - its) / len(tier), len(tier))
    better = sum(own and not other for own, other in zip(tier, reference, strict=True))
    worse = sum(other and not own for own, other in zip(tier, reference, strict=True))
    compared = Comparison(
        difference=more.value, low=more.low, high=more.high, better=better, worse=worse, p=mcnemar(better, worse)
    )
    kept = {name: _estimate(units, lambda own, its: own / its, len(tier))} if any(reference) else {}
    return Figures(metrics, kept, {name: compared})


def pace_figures(tier: Paced, reference: Paced | None, *, weight_bytes: int, price_per_hour: float) -> Figures:
    """Return speed, memory and, where the hardware has a price, cost."""
    metrics = _speeds(tier) | {
        "memory_bytes.weights": _figure(weight_bytes, weight_bytes, weight_bytes, 1),
        "memory_bytes.resident": _figure(tier.resident_bytes, tier.resident_bytes, tier.resident_bytes, 1),
    }
    if tier.gpu_bytes is not None:
        metrics["memory_bytes.gpu"] = _figure(tier.gpu_bytes, tier.gpu_bytes, tier.gpu_bytes, 1)
    if price_per_hour > 0:
        rate, cost = metrics["tokens_per_s"], price_per_hour / 3600 * 1e6
        metrics["cost_per_mtok"] = _figure(cost / rate.value, cost / rate.high, cost / rate.low, rate.n)
    if reference is None:
        return Figures(metrics)
    kept = {name: _ratio(name, metrics[name], other) for name, other in _speeds(reference).items()}
    return Figures(metrics, kept)


def _speeds(paced: Paced) -> dict[str, Figure]:
    rates = np.array(paced.tokens_per_s)
    waits = np.array(paced.ttft_s).reshape(len(rates), -1) * 1000
    speeds = {"tokens_per_s": _estimate(rates[:, None], lambda total: total / len(rates), len(rates))}
    for name, quantile in (("p50", _P50), ("p99", _P99)):
        value = float(np.quantile(waits, quantile))
        speeds[f"ttft_ms.{name}"] = _figure(value, *bootstrap_quantile(waits, quantile), waits.size)
    return speeds


def _ratio(name: str, tier: Figure, reference: Figure) -> Figure:
    """Return the recovery of two figures that were measured apart: the interval takes the worst of both."""
    ends = [
        recovery(name, own, other) or 0.0 for own in (tier.low, tier.high) for other in (reference.low, reference.high)
    ]
    return _figure(recovery(name, tier.value, reference.value) or 0.0, min(ends), max(ends), min(tier.n, reference.n))


def _loss(passage: Distributions) -> float:
    return -float(passage.actual.sum(dtype=float))


def _compared(reference: Distributions, tier: Distributions) -> tuple[float, ...]:
    """Return tokens, loss of the tier, loss of the reference, divergence, and tokens on which both agree."""
    return (
        len(tier.actual),
        _loss(tier),
        _loss(reference),
        divergence(reference, tier).sum(),
        float(agreement(reference, tier).sum()),
    )


def _exp(exponent: Floats) -> Floats:
    """Return e to the exponent; a checkpoint that is sure of the wrong thing is bad, not infinite."""
    result: Floats = np.exp(np.minimum(exponent, _MAX_NATS))
    return result


def _estimate(units: Floats, statistic: Callable[..., Floats], count: int) -> Figure:
    return _figure(float(statistic(*units.sum(axis=0))), *bootstrap(units, statistic), count)


def _figure(value: float, low: float, high: float, count: int) -> Figure:
    """Make a figure; a percentile interval of few items may miss its own value, and of none is none."""
    low, high = (value if math.isnan(end) else end for end in (low, high))
    return Figure(value=value, low=min(low, value), high=max(high, value), n=count)


def _difference(more: Figure) -> Comparison:
    return Comparison(difference=more.value, low=more.low, high=more.high)
