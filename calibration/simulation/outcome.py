"""What came of simulated requests: times, tokens, goodput, tier shares, overflow and cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bitladder.routing.cost import price_of
from calibration.simulation.event_loop import Work
from calibration.statistics import Floats

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a request must keep, in seconds, to count as good; None: it need not."""

    ttft_s: float | None = None
    total_s: float | None = None
    per_token_s: float | None = None


NO_TARGETS = Targets()


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFacts:
    """What a tier is made of."""

    name: str
    workers: int
    price_per_hour: float
    curve: Mapping[str, str]  # where its speed comes from


class _Where(NamedTuple):
    """Which tier each request was meant for and served at, and what it took there."""

    rank: Floats
    served: Floats
    tokens: Floats
    shares_s: Floats
    span_s: float


def figures_of(work: Work, tiers: Sequence[TierFacts], targets: Targets) -> dict[str, Any]:
    """Return the figures, ready for JSON."""
    at, ended = np.asarray(work.at_s), np.asarray(work.ended_s)
    begun, first = np.asarray(work.begun_s), np.asarray(work.first_s)
    tokens = np.asarray(work.output_tokens)
    total, ttft = ended - at, first - at
    per_token = (ended - first) / np.maximum(1, tokens - 1)
    span_s = float(ended.max() - at.min())
    good = np.ones(len(at), dtype=bool)
    for target_s, values in ((targets.ttft_s, ttft), (targets.total_s, total), (targets.per_token_s, per_token)):
        if target_s is not None:
            good &= values <= target_s
    where = _Where(np.asarray(work.rank), np.asarray(work.served), tokens, np.asarray(work.share_s), span_s)
    rows = [_tier(index, tier, where) for index, tier in enumerate(tiers)]
    return {
        "requests": len(at),
        "span_s": _rounded(span_s),
        "requests_per_s": _rounded(len(at) / span_s) if span_s else None,
        "wait_s": _spread(begun - at),
        "ttft_s": _spread(ttft),
        "total_s": _spread(total),
        "time_per_token_s": _spread(per_token),
        "goodput": {
            "ttft_s": targets.ttft_s,
            "total_s": targets.total_s,
            "time_per_token_s": targets.per_token_s,
            "share": _rounded(float(good.mean())),
            "requests_per_s": _rounded(float(good.sum()) / span_s) if span_s else None,
        },
        "cost": _cost(rows, float(tokens.sum())),
        "overflow": _overflow(where, tiers),
        "tiers": rows,
    }


def _tier(index: int, tier: TierFacts, where: _Where) -> dict[str, Any]:
    here = where.served == index
    busy_s = float(where.shares_s[here].sum())
    worked_s = tier.workers * where.span_s
    return {
        "tier": tier.name,
        "workers": tier.workers,
        "floor_share": _rounded(float(np.mean(where.rank == index))),
        "share": _rounded(float(np.mean(here))),
        "tokens": _rounded(float(where.tokens[here].sum())),
        "busy": _rounded(busy_s / worked_s) if worked_s else 0.0,
        "rent": _rounded(price_of(worked_s, tier.price_per_hour)),
        "attributed": _rounded(price_of(busy_s, tier.price_per_hour)),
        "curve": dict(tier.curve),
    }


def _cost(rows: Sequence[Mapping[str, Any]], tokens: float) -> dict[str, float | None]:
    rent, attributed = (sum(row[name] for row in rows) for name in ("rent", "attributed"))
    return {
        "rent": _rounded(rent),  # workers are paid for whether they work or not
        "attributed": _rounded(attributed),  # their busy time alone, shared by the jobs in it
        "rent_per_1k_tokens": _rounded(1000 * rent / tokens) if tokens else None,
        "attributed_per_1k_tokens": _rounded(1000 * attributed / tokens) if tokens else None,
    }


def _overflow(where: _Where, tiers: Sequence[TierFacts]) -> dict[str, Any]:
    ways = {
        f"{lower.name} to {higher.name}": count
        for low, lower in enumerate(tiers)
        for high, higher in enumerate(tiers)
        if high > low and (count := int(np.sum((where.rank == low) & (where.served == high))))
    }
    return {"requests": sum(ways.values()), "share": _rounded(sum(ways.values()) / len(where.rank)), "ways": ways}


def _spread(values: Floats) -> dict[str, float]:
    quantiles = np.quantile(values, list(_QUANTILES.values()))
    named = dict(zip(_QUANTILES, (_rounded(float(value)) for value in quantiles), strict=True))
    return {"mean": _rounded(float(values.mean())), **named}


def _rounded(value: float) -> float:
    """Return a value with six significant digits: more would say nothing."""
    return value if value == 0 or not math.isfinite(value) else round(value, 5 - math.floor(math.log10(abs(value))))
