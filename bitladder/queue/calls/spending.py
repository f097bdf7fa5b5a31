"""What workers spend, and what it adds up to: spend.lua and the daily sums that it writes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bitladder.queue.run_script import Argument, Call

# In the place of a tenant: those beyond MAX_ROWS. No tenant can be named so.
OTHERS = "(others)"
# Rows of a day, one for each model, tier and tenant. With three sums each, a day of them takes some 250 KB.
MAX_ROWS = 1000
DAY_MS = 86_400_000
# Of an API key's or a tenant's name, as the settings have it.
_MAX_NAME = 63


class Spent(msgspec.Struct, kw_only=True):
    """What one worker has spent since its last call."""

    number: int  # of the call: one that is repeated is added once
    seconds: float = 0.0  # that the worker was there
    rent: float = 0.0  # the price of these
    overflow: float = 0.0  # of the attributed cost: of jobs from lower tiers
    tenants: dict[str, list[float]] = {}  # cost, jobs and tokens
    payers: dict[tuple[int, str], float] = {}  # by day since 1970 and API key: how much more it pays
    paces: dict[int, list[float]] = {}  # by concurrency: jobs, tokens, seconds of share, seconds in the engine

    def add_tenant(self, tenant: str, cost: float, jobs: int, tokens: int) -> None:
        sums = self.tenants.get(tenant)
        if sums is None:
            is_name = 0 < len(tenant) <= _MAX_NAME and tenant.isascii() and tenant.isprintable() and "|" not in tenant
            known_as = tenant if is_name and len(self.tenants) < MAX_ROWS else OTHERS
            sums = self.tenants.setdefault(known_as, [0.0, 0, 0])
        sums[0] += cost
        sums[1] += jobs
        sums[2] += tokens

    def add_payer(self, key: str, at_ms: int, amount: float) -> None:
        payer = (at_ms // DAY_MS, key)
        if len(key) <= _MAX_NAME and (payer in self.payers or len(self.payers) < MAX_ROWS):
            self.payers[payer] = self.payers.get(payer, 0.0) + amount

    def add_pace(self, concurrency: int, tokens: int, share_s: float, run_s: float) -> None:
        sums = self.paces.get(concurrency)
        if sums is None:
            sums = self.paces[concurrency] = [0, 0, 0.0, 0.0]
        sums[0] += 1
        sums[1] += tokens
        sums[2] += share_s
        sums[3] += run_s


def pace_key(model: str, tier: str) -> str:
    """Return the hash of what a tier's workers have measured."""
    return f"bl:pace:{model}:{tier}"


def costs_key(day: str) -> str:
    """Return the hash of one day's sums."""
    return f"bl:costs:{day}"


def spend_call(worker: str, model: str, tier: str, spent: Spent) -> Call:
    """Build the call of spend.lua. It answers with what overflow has cost the model in this hour."""
    args: list[Argument] = [spent.number, model, tier, _text(spent.rent), _text(spent.seconds), _text(spent.overflow)]
    args += [MAX_ROWS, OTHERS, f"{len(spent.tenants)} {len(spent.payers)} {len(spent.paces)}"]
    for tenant, sums in spent.tenants.items():
        args += [tenant, *map(_text, sums)]
    for (day, key), amount in spent.payers.items():
        args += [key, day * DAY_MS, _text(amount)]
    for concurrency, sums in spent.paces.items():
        args += [concurrency, *map(_text, sums)]
    return Call("spend", [f"rq:worker:{worker}", pace_key(model, tier)], args)


def read_day(sums: Mapping[bytes, bytes]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Read a day's sums, by model, tier and tenant ('': of the tier's workers); what is no sum of ours is left out."""
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for field, value in sums.items():
        parts = field.decode(errors="replace").split("|")
        try:
            amount = float(value)
        except ValueError:
            continue
        if len(parts) == 4:
            model, tier, tenant, what = parts
            rows.setdefault((model, tier, tenant), {})[what] = amount
    return rows


def _text(amount: float) -> str:
    return f"{amount:.12g}"
