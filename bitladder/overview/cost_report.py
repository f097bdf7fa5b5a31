"""What a service has cost: the report of GET /v1/costs and `bitladder costs`, and what was measured of its tiers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import redis.asyncio
from msgspec import Meta
from redis.exceptions import RedisError

from bitladder.queue.calls.spending import costs_key, pace_key, read_day
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.kinds import Count, ModelName, TierName
from bitladder.queue.server.protocol import unreachable
from bitladder.routing.cost import Curves, Paces, TierSum, all_at, cost_per_1k, dominated, read_paces, saving
from bitladder.settings.sections import Settings

Grouping = Literal["tenant", "tier", "day", "model"]
# As long as the sums of a day are kept.
MAX_DAYS = 90
# What names a row, by grouping.
_NAMES: Mapping[Grouping, tuple[str, ...]] = {
    "tenant": ("tenant",),
    "tier": ("model", "tier"),
    "day": ("day",),
    "model": ("model",),
}
# By model.
ModelCurves = Mapping[str, Curves]
_NOTHING = TierSum()
_Money = Annotated[float, Meta(description="In the currency of the tiers' prices.")]
_Maybe = Annotated[float | None, Meta(description="null: not measured, or no part of this row.")]


class CostRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant, tier, day or model has cost."""

    model: ModelName | None = None
    tier: TierName | None = None
    tenant: str | None = None
    day: str | None = None
    requests: Count
    tokens: Count
    attributed: _Money
    rent: _Maybe
    all_on_top_tier: _Maybe
    all_on_lowest_tier: _Maybe
    saving_per_request: Annotated[_Maybe, Meta(description="Beside all on the top tier.")]


_DOMINATED = "By model and tier: the higher one that writes as fast and as cheaply, at every load that both have known."


class CostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of some days have cost, and what they would have cost at one tier."""

    object: Literal["costs"] = "costs"
    grouped_by: Grouping
    since: str
    until: str
    data: list[CostRow]
    total: CostRow
    dominated: Annotated[dict[str, dict[str, str]], Meta(description=_DOMINATED)]


async def read_curves(client: redis.asyncio.Redis, settings: Settings) -> ModelCurves:
    """Read what the workers of all tiers have measured.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    tiers = [(name, tier) for name, model in settings.models.items() for tier in model.ladder]
    hashes = await _hashes(client, [pace_key(model, tier) for model, tier in tiers])
    curves: dict[str, dict[str, Paces]] = {name: {} for name in settings.models}
    for (model, tier), measured in zip(tiers, hashes, strict=True):
        curves[model][tier] = read_paces(measured)
    return curves


async def report_costs(queue: JobQueue, grouping: Grouping, days: int, tenant: str | None = None) -> CostReport:
    """Return what the last days have cost, today included; `tenant`: its requests alone, without rent.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    settings, today = queue.settings, datetime.now(UTC).date()
    names = [(today - timedelta(days=before)).isoformat() for before in range(days)]
    hashes = await _hashes(queue.client, [costs_key(day) for day in names])
    cells = [
        (day, *key, sums) for day, fields in zip(names, hashes, strict=True) for key, sums in read_day(fields).items()
    ]
    curves = await read_curves(queue.client, settings)
    baselines = _Baselines(settings, curves, cells)
    rows: dict[tuple[str | None, ...], _Row] = defaultdict(lambda: _Row(baselines))
    total = _Row(baselines)
    for day, model, tier, row_tenant, sums in cells:
        if tier and model in settings.models and tenant in (None, row_tenant):
            total.add(model, row_tenant, sums)
            if row_tenant or grouping != "tenant":
                cell = {"model": model, "tier": tier, "tenant": row_tenant, "day": day}
                rows[tuple(cell[name] for name in _NAMES[grouping])].add(model, row_tenant, sums)
    shown = sorted(rows.items(), key=lambda item: item[0] if grouping == "day" else (-item[1].spent, *item[0]))
    return CostReport(
        grouped_by=grouping,
        since=names[-1],
        until=names[0],
        data=[row.shown(dict(zip(_NAMES[grouping], key, strict=True))) for key, row in shown],
        total=total.shown({}),
        dominated={name: beaten for name, beaten in dominated_tiers(settings, curves).items() if beaten},
    )


def dominated_tiers(settings: Settings, curves: ModelCurves) -> dict[str, dict[str, str]]:
    """Return by model the tiers that a higher one beats in quality, speed and cost at once, by that one."""
    return {
        name: dominated(model.ladder, {tier.name: tier.price_per_hour for tier in model.tiers}, curves.get(name, {}))
        for name, model in settings.models.items()
    }


class _Baselines:
    """What tokens would have cost at the ends of their model's ladder."""

    def __init__(self, settings: Settings, curves: ModelCurves, cells: Sequence[tuple[Any, ...]]) -> None:
        self._settings, self._curves = settings, curves
        self._tiers: dict[tuple[str, str], TierSum] = {}
        for _, model, tier, _, sums in cells:
            self._tiers[model, tier] = _plus(self._tiers.get((model, tier), _NOTHING), sums)

    def of(self, model: str, place: int, tokens: float) -> float | None:
        tier = self._settings.model(model).tiers[place]
        pace = self._curves[model][tier.name].now
        measured = cost_per_1k(tier.price_per_hour, pace) if pace else None
        return all_at(tokens, self._tiers.get((model, tier.name), _NOTHING), measured)


class _Row:
    """The sums of one row."""

    def __init__(self, baselines: _Baselines) -> None:
        self._baselines = baselines
        self._by_model: dict[str, TierSum] = {}
        self._rent: float | None = None

    def add(self, model: str, tenant: str, sums: Mapping[str, float]) -> None:
        self._by_model[model] = _plus(self._by_model.get(model, _NOTHING), sums)
        if not tenant:
            self._rent = (self._rent or 0.0) + sums.get("rent", 0.0)

    @property
    def spent(self) -> float:
        return sum(tier.cost for tier in self._by_model.values())

    def shown(self, names: Mapping[str, str | None]) -> CostRow:
        jobs, top = sum(tier.jobs for tier in self._by_model.values()), self._all_at(-1)
        return CostRow(
            **names,
            requests=round(jobs),
            tokens=round(sum(tier.tokens for tier in self._by_model.values())),
            attributed=self.spent,
            rent=self._rent,
            all_on_top_tier=top,
            all_on_lowest_tier=self._all_at(0),
            saving_per_request=saving(top, self.spent, jobs),
        )

    def _all_at(self, place: int) -> float | None:
        costs = [self._baselines.of(model, place, sums.tokens) for model, sums in self._by_model.items()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


def _plus(before: TierSum, sums: Mapping[str, float]) -> TierSum:
    return TierSum(
        cost=before.cost + sums.get("cost", 0.0),
        jobs=before.jobs + sums.get("jobs", 0.0),
        tokens=before.tokens + sums.get("tokens", 0.0),
    )


async def _hashes(client: redis.asyncio.Redis, keys: Sequence[str]) -> list[Mapping[bytes, bytes]]:
    """Return hashes; empty ones where a key is none."""
    try:
        async with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            answers = await pipe.execute(raise_on_error=False)
    except (RedisError, OSError) as error:
        raise unreachable("cannot read what was spent", error) from error
    return [{} if isinstance(answer, Exception) else answer for answer in answers]
