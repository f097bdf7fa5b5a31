"""GET /v1/tenants: who waits, runs and spends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bitladder.contract import State
from bitladder.overview.cost_report import CostRow, report_costs
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.finding.sources import plan_listing, tenant_of
from bitladder.queue.json_views.finding.tenant_counts import unended_jobs
from bitladder.queue.json_views.kinds import Count
from bitladder.queue_name import DEFAULT_TENANT
from bitladder.settings.access import AuthSettings

MAX_TENANTS = 1000

_Today = "Of today (UTC)"
_Cost = Annotated[float, Meta(description=f"{_Today}, in the currency of the tiers' prices.")]
_Jobs = Annotated[Count, Meta(description=f"{_Today}: jobs that finished.")]
_Tokens = Annotated[Count, Meta(description=f"{_Today}: tokens that were written.")]
_Weight = Annotated[int, Meta(ge=1, description="Its share of a lane beside other tenants'.")]
_Limit = Annotated[Count | None, Meta(description="Jobs it may have waiting or running; null: no limit.")]


class TenantRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant."""

    tenant: str
    waiting: Count
    running: Count
    weight: _Weight
    cost_today: _Cost
    jobs_today: _Jobs
    tokens_today: _Tokens
    limit: _Limit
    keys: Annotated[list[str], Meta(description="The names of its API keys.")]


class TenantList(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants that have a key, jobs or costs of today: those with the most jobs first, then by cost."""

    object: Literal["list"] = "list"
    data: Annotated[list[TenantRow], Meta(max_length=MAX_TENANTS)]
    has_more: bool
    total: Count
    day: str


async def list_tenants(queue: JobQueue) -> TenantList:
    """List the tenants.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    plan = await plan_listing(queue, JobFilter(state=(State.QUEUED, State.RUNNING)))
    report = await report_costs(queue, "tenant", 1)
    spent = {row.tenant: row for row in report.data if row.tenant}
    waiting = Counter[str]()
    for name, size in plan.sizes.lists.items():
        waiting[tenant_of(name)] += size.waiting
    settings = queue.settings
    keys = _keys(settings.auth)
    names = sorted({DEFAULT_TENANT, *keys, *spent, *(name for name, jobs in waiting.items() if jobs)})
    named = [name for name in names if name != DEFAULT_TENANT]
    unended = dict(zip(named, await unended_jobs(queue, named, plan.sizes.now_ms), strict=True))
    running = {name: max(0, unended[name] - waiting[name]) for name in named}
    everything = sum(size.running for size in plan.sizes.queues.values())
    running[DEFAULT_TENANT] = max(0, everything - sum(running.values()))
    rows = [
        _row(name, (waiting[name], running[name]), spent.get(name), keys.get(name, {}), settings.queue.max_per_tenant)
        for name in names
    ]
    rows.sort(key=lambda row: (-(row.waiting + row.running), -row.cost_today, row.tenant))
    return TenantList(data=rows[:MAX_TENANTS], has_more=len(rows) > MAX_TENANTS, total=len(rows), day=report.until)


# By a key's name: its weight, and how many jobs its tenant may have when it submits one.
_Keys = Mapping[str, tuple[int, int | None]]


def _keys(auth: AuthSettings) -> dict[str, dict[str, tuple[int, int | None]]]:
    keys: dict[str, dict[str, tuple[int, int | None]]] = {}
    for name, key in auth.keys.items():
        keys.setdefault(key.tenant, {})[name] = (key.weight, key.max_queued)
    return keys


def _row(tenant: str, jobs: tuple[int, int], spent: CostRow | None, keys: _Keys, usual_limit: int) -> TenantRow:
    limits = [limit or usual_limit for _, limit in keys.values()] or [usual_limit]
    waiting, running = jobs
    return TenantRow(
        tenant=tenant,
        waiting=waiting,
        running=running,
        weight=max((weight for weight, _ in keys.values()), default=1),
        cost_today=round(spent.attributed, 9) if spent else 0.0,
        jobs_today=spent.requests if spent else 0,
        tokens_today=spent.tokens if spent else 0,
        limit=None if tenant == DEFAULT_TENANT or 0 in limits else max(limits),
        keys=list(keys),
    )
