"""What came of simulated requests: times, tokens, goodput, tier shares, overflow and cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bitladder.queue_name import DEFAULT_TENANT
from bitladder.routing.cost import price_of
from calibration.simulation.simulated_work import End, Work
from calibration.statistics import Floats

Mask = npt.NDArray[np.bool_]
_MAX_TENANTS = 50
_PACE = "time_per_token_s"
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
    served: Floats  # of those that were served, else -1
    begun: Floats  # of those that a worker began, else -1
    tokens: Floats
    shares_s: Floats
    span_s: float


def figures_of(work: Work, tiers: Sequence[TierFacts], targets: Targets, tenants: Sequence[str] = ()) -> dict[str, Any]:
    """Return the figures, ready for JSON. Times are those of requests that were served.

    `tenants`: of each request; without them there are no figures by tenant.
    """
    is_served = np.asarray(work.ends) == End.SERVED
    times = _times_of(work)
    good = is_served.copy()
    for target_s, name in ((targets.ttft_s, "ttft_s"), (targets.total_s, "total_s"), (targets.per_token_s, _PACE)):
        if target_s is not None:
            good &= np.nan_to_num(times[name], nan=np.inf) <= target_s
    where = _where(work, is_served)
    rows = [_tier(index, tier, where) for index, tier in enumerate(tiers)]
    count, span_s = len(work.at_s), where.span_s
    return {
        "requests": count,
        "span_s": _rounded(span_s),
        "requests_per_s": _rounded(count / span_s) if span_s else None,
        "ended": {end.name.lower(): work.ends.count(end) for end in End if end is not End.NONE},
        **({} if work.over_budget is None else {"over_budget": work.over_budget}),
        **{name: _spread(values[is_served]) for name, values in times.items()},
        "goodput": {
            "ttft_s": targets.ttft_s,
            "total_s": targets.total_s,
            _PACE: targets.per_token_s,
            "share": _rounded(float(good.mean())),
            "requests_per_s": _rounded(float(good.sum()) / span_s) if span_s else None,
        },
        "cost": _cost(rows, float(where.tokens.sum())),
        "overflow": _overflow(where, tiers),
        "below_floor": int(np.sum((where.served >= 0) & (where.served < where.rank))),
        "tiers": rows,
        **({"tenants": _by_tenant(tenants, is_served, good, times["total_s"])} if len(tenants) else {}),
    }


def _times_of(work: Work) -> dict[str, Floats]:
    """Return the times of each request; nan where it has none."""
    at, ended = np.asarray(work.at_s), np.asarray(work.ended_s)
    begun, first = np.asarray(work.begun_s), np.asarray(work.first_s)
    per_token = (ended - first) / np.maximum(1, np.asarray(work.output_tokens) - 1)
    return {"wait_s": begun - at, "ttft_s": first - at, "total_s": ended - at, _PACE: per_token}


def _where(work: Work, is_served: Mask) -> _Where:
    at, ended = np.asarray(work.at_s), np.asarray(work.ended_s)
    last_s = max(float(np.nan_to_num(ended).max()), float(at[-1]))
    begun = ~np.isnan(np.asarray(work.begun_s))
    return _Where(
        rank=np.asarray(work.rank),
        served=np.where(is_served, np.asarray(work.served), -1),
        begun=np.where(begun, np.asarray(work.served), -1),
        tokens=np.where(is_served, np.asarray(work.output_tokens), 0.0),
        shares_s=np.asarray(work.share_s),
        span_s=last_s - float(at[0]),
    )


def _by_tenant(tenants: Sequence[str], is_served: Mask, good: Mask, total_s: Floats) -> list[dict[str, Any]]:
    """Return the figures of the tenants with most requests."""
    names, places, counts = np.unique(np.asarray(tenants), return_inverse=True, return_counts=True)
    rows = []
    for place in np.argsort(-counts, kind="stable")[:_MAX_TENANTS]:
        of_tenant = places == place
        rows.append(
            {
                "tenant": str(names[place]) or DEFAULT_TENANT,
                "requests": int(counts[place]),
                "served": _rounded(float(is_served[of_tenant].mean())),
                "good": _rounded(float(good[of_tenant].mean())),
                "total_s": _spread(total_s[of_tenant & is_served]),
            }
        )
    return rows


def _tier(index: int, tier: TierFacts, where: _Where) -> dict[str, Any]:
    here = where.served == index
    busy_s = float(where.shares_s[where.begun == index].sum())
    worked_s = tier.workers * where.span_s
    answered = int(np.sum(where.served >= 0))
    return {
        "tier": tier.name,
        "workers": tier.workers,
        "floor_share": _rounded(float(np.mean(where.rank == index))),
        "share": _rounded(float(here.sum()) / answered) if answered else 0.0,
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
    answered = max(1, int(np.sum(where.served >= 0)))
    return {"requests": sum(ways.values()), "share": _rounded(sum(ways.values()) / answered), "ways": ways}


def _spread(values: Floats) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(("mean", *_QUANTILES))
    quantiles = np.quantile(values, list(_QUANTILES.values()))
    named = dict(zip(_QUANTILES, (_rounded(float(value)) for value in quantiles), strict=True))
    return {"mean": _rounded(float(values.mean())), **named}


def _rounded(value: float) -> float:
    """Return a value with six significant digits: more would say nothing."""
    return value if value == 0 or not math.isfinite(value) else round(value, 5 - math.floor(math.log10(abs(value))))
