"""What a request costs: from prices and measured paces to expected costs, baselines, and dominated tiers. Pure.

Money is in the currency of `price_per_hour`, everywhere. Tokens are those that a model writes: what it takes to read
the prompts is in the price of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

_HOUR_S = 3600
# Concurrencies are counted in powers of two, up to the most slots that a tier can have.
_MAX_CONCURRENCY = 4096
_ROOT_OF_2 = 2**0.5


class Pace(msgspec.Struct, frozen=True, gc=False):
    """What a tier's workers have measured at one concurrency, over the jobs that they finished."""

    jobs: float
    tokens: float
    share_s: float  # of the engine's time: at every moment, the jobs in it share it evenly
    run_s: float  # the jobs' time in the engine

    @property
    def is_measured(self) -> bool:
        return min(self.jobs, self.tokens, self.share_s, self.run_s) > 0

    @property
    def engine_tokens_per_s(self) -> float:
        """How fast one engine writes, all its jobs together."""
        return self.tokens / self.share_s

    @property
    def job_tokens_per_s(self) -> float:
        """How fast one job's answer is written."""
        return self.tokens / self.run_s


class Paces(msgspec.Struct, frozen=True, gc=False):
    """The curve of one tier: its paces by concurrency, and the concurrency of the last jobs."""

    by_concurrency: Mapping[int, Pace] = {}
    last: int = 1

    @property
    def now(self) -> Pace | None:
        """The pace at the load as it was last, or at the nearest that was measured; None: nothing was."""
        return min(self.by_concurrency.items(), key=lambda item: _steps(item[0], self.last), default=(0, None))[1]

    @property
    def tokens_per_job(self) -> float:
        """The average length of an answer; 0: not known."""
        jobs = sum(pace.jobs for pace in self.by_concurrency.values())
        return sum(pace.tokens for pace in self.by_concurrency.values()) / jobs if jobs else 0.0


NO_PACES = Paces()
# By tier.
Curves = Mapping[str, Paces]


def read_paces(measured: Mapping[bytes, bytes]) -> Paces:
    """Read what a tier's workers have measured, as spend.lua keeps it; what it has not written is left out."""
    by_concurrency, last = {}, 1
    for field, value in measured.items():
        try:
            if field == b"last":
                last = max(1, int(value))
                continue
            pace = Pace(*map(float, value.split()))
            concurrency = int(field)
        except (ValueError, TypeError):
            continue
        if concurrency > 0 and pace.is_measured:
            by_concurrency[concurrency] = pace
    return Paces(by_concurrency, last)


def _steps(concurrency: int, other: int) -> float:
    return abs(math.log2(concurrency / other))


def concurrency_of(run_s: float, share_s: float) -> int:
    """Return how many jobs were in the engine beside one, itself included, on average: the nearest power of two."""
    beside = run_s / share_s if share_s > 0 else 1.0
    # The whole part of its logarithm and a half: its nearest exponent. With math.log2 it would take as long again.
    return 1 << int(min(max(beside, 1.0), _MAX_CONCURRENCY) * _ROOT_OF_2).bit_length() - 1


def price_of(seconds: float, price_per_hour: float) -> float:
    """Return what so much of a worker's time costs."""
    return seconds * price_per_hour / _HOUR_S


def cost_per_1k(price_per_hour: float, pace: Pace) -> float:
    """Return what 1,000 tokens cost at a pace."""
    return price_of(1000 / pace.engine_tokens_per_s, price_per_hour)


def expected_cost(price_per_hour: float, paces: Paces, max_tokens: int | None) -> float | None:
    """Return what a request would cost at a tier, at its present load; None: nothing has been measured there.

    Its answer is expected to be as long as they are on average, or `max_tokens` where that is less.
    """
    if price_per_hour == 0:
        return 0.0
    if (pace := paces.now) is None:
        return None
    tokens = paces.tokens_per_job if max_tokens is None else min(max_tokens, paces.tokens_per_job)
    return cost_per_1k(price_per_hour, pace) * tokens / 1000


def expected_costs(prices: Mapping[str, float], curves: Curves, max_tokens: int | None) -> dict[str, float | None]:
    """Return what a request would cost at each tier."""
    return {tier: expected_cost(price, curves.get(tier, NO_PACES), max_tokens) for tier, price in prices.items()}


def at_least(costs: Sequence[float | None]) -> list[float]:
    """Return what a request costs at least, lowest tier first: where nothing was measured, what the tier below does.

    So a tier may be used before anything was measured of it, but not because the one below is too dear.
    """
    bounds = [0.0]
    for cost in costs:
        bounds.append(bounds[-1] if cost is None else cost)
    return bounds[1:]


def affordable(costs: Sequence[float], lowest: int, highest: int, max_cost: float) -> tuple[int, int] | None:
    """Return the lowest tiers in a row, by rank, that are expected to cost no more; None: none of them is."""
    ranks = [rank for rank in range(lowest, highest + 1) if costs[rank] <= max_cost]
    if not ranks:
        return None
    last = ranks[0]
    while last + 1 in ranks:
        last += 1
    return ranks[0], last


class TierSum(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier has done, and what that cost."""

    cost: float = 0.0  # attributed
    jobs: float = 0.0
    tokens: float = 0.0

    @property
    def cost_per_1k(self) -> float | None:
        return 1000 * self.cost / self.tokens if self.tokens > 0 else None


def all_at(tokens: float, tier: TierSum, measured: float | None) -> float | None:
    """Return what so many tokens would have cost at one tier; None: nothing was measured there.

    It goes by what the tier's tokens did cost in this time, else by what 1,000 cost at its last load (`measured`).
    """
    per_1k = tier.cost_per_1k if tier.cost_per_1k is not None else measured
    return None if per_1k is None else per_1k * tokens / 1000


def saving(baseline: float | None, cost: float, jobs: float) -> float | None:
    """Return by how much a request was cheaper than at the baseline, on average."""
    return None if baseline is None or jobs == 0 else (baseline - cost) / jobs


def dominated(ladder: Iterable[str], prices: Mapping[str, float], curves: Curves) -> dict[str, str]:
    """Return the tiers that a higher one beats, by that one: as fast and as cheap at every load that both have known.

    Its quality is better: the ladder has the lowest first. Where both are equally fast and cheap, quality decides.
    """
    tiers = list(ladder)
    beaten: dict[str, str] = {}
    for rank, tier in enumerate(tiers):
        for higher in tiers[rank + 1 :]:
            if _beats(higher, tier, prices, curves):
                beaten[tier] = higher
    return beaten


def _beats(higher: str, lower: str, prices: Mapping[str, float], curves: Curves) -> bool:
    above, below = curves.get(higher, NO_PACES).by_concurrency, curves.get(lower, NO_PACES).by_concurrency
    loads = [load for load in below if load in above]
    return bool(loads) and all(
        above[load].job_tokens_per_s >= below[load].job_tokens_per_s
        and cost_per_1k(prices[higher], above[load]) <= cost_per_1k(prices[lower], below[load])
        for load in loads
    )
