"""The rows of `bitladder top`: one for each tier, sorted and filtered, in words and numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from bitladder.errors import NotFoundError
from bitladder.overview.shape import Overview, TierOverview
from bitladder.queue.calls.worker_report import Breaker
from bitladder.queue_name import Lane
from calibration.terminal.tabular import plain

_BARS = "▁▂▃▄▅▆▇█"
COLUMNS = (
    "model",
    "tier",
    "state",
    "depth",
    "urg/nor/bat",
    "oldest",
    "wait",
    "run",
    "workers",
    "slots",
    "jobs/s",
    "tok/s",
    "cost/h",
    "overflow in/min",
)


class Sort(StrEnum):
    """What the rows are sorted by; but for the ladder, the largest first."""

    LADDER = "ladder"
    DEPTH = "depth"
    OLDEST = "oldest"
    TOKENS = "tokens"
    COST = "cost"


_KEYS: dict[Sort, Callable[[TierOverview], float]] = {
    Sort.DEPTH: lambda tier: tier.depth,
    Sort.OLDEST: lambda tier: tier.oldest_age_s or 0.0,
    Sort.TOKENS: lambda tier: tier.tokens_per_s,
    Sort.COST: lambda tier: tier.cost_per_hour,
}


class Row(NamedTuple):
    """One tier."""

    model: str
    tier: TierOverview
    cells: tuple[str, ...]
    is_wrong: bool


def rows_of(overview: Overview, sort: Sort = Sort.LADDER, model: str | None = None) -> list[Row]:
    """Return the rows of a sample: of one model, or of all; the highest tier first, as on a ladder."""
    pairs = [
        (entry.model, tier)
        for entry in overview.models
        if model is None or entry.model == model
        for tier in reversed(entry.tiers)
    ]
    if sort in _KEYS:
        pairs.sort(key=lambda pair: -_KEYS[sort](pair[1]))
    return [Row(name, tier, _cells(name, tier), state_of(tier) != "ok") for name, tier in pairs]


def check_model(overview: Overview, model: str | None) -> None:
    """Refuse a model that is not there.

    Raises:
        NotFoundError: it is not.

    """
    names = [entry.model for entry in overview.models]
    if model is not None and model not in names:
        raise NotFoundError(f"model must be one of {', '.join(names)}, got {model[:100]!r}", param="model")


def state_of(tier: TierOverview) -> str:
    """Return what matters most about a tier, in a word or two."""
    if not tier.workers:
        return "no worker"
    if tier.paused:
        return "paused"
    if tier.shifted:
        return "shifted"
    if tier.breaker in (Breaker.OPEN, Breaker.HALF_OPEN):
        return f"breaker {tier.breaker}"
    return "not ready" if tier.workers_not_ready else "ok"


def _cells(model: str, tier: TierOverview) -> tuple[str, ...]:
    workers = f"{tier.workers}+{tier.workers_not_ready}" if tier.workers_not_ready else str(tier.workers)
    cells = (
        model,
        tier.tier,
        state_of(tier),
        str(tier.depth),
        "/".join(str(tier.by_lane[lane].depth) if lane in tier.by_lane else "0" for lane in Lane),
        duration(tier.oldest_age_s),
        duration(tier.expected_wait_s),
        str(tier.in_flight),
        workers,
        f"{tier.held}/{tier.slots}",
        f"{tier.jobs_per_s:.1f}",
        f"{tier.tokens_per_s:.0f}",
        f"{tier.cost_per_hour:.2f}",
        " ".join(f"{origin} {count}" for origin, count in tier.overflow_in.items() if count) or "-",
    )
    return tuple(map(plain, cells))


def duration(seconds: float | None) -> str:
    """Return a time as 0.4s, 59s, 5m12s, 3h05m or 2d4h; - where there is none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def bars(values: Sequence[float]) -> str:
    """Return values as a row of bars, the tallest of them as tall as a line."""
    top = max(values, default=0)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] if top else _BARS[0] for value in values)


def summary(overview: Overview) -> list[str]:
    """Return what holds for the whole service, a line for each subject."""
    redis, costs, dead = overview.redis, overview.costs_today, overview.dead_letters
    share = "no limit" if redis.memory_share is None else f"{redis.memory_share:.0%}"
    saved = "" if costs.all_on_top_tier is None else f", all on top tiers {costs.all_on_top_tier:.2f}"
    codes = ", ".join(f"{code} {count}" for code, count in list(dead.by_error.items())[:3])
    lines = (
        f"{redis.version}  memory {redis.used_bytes / 2**20:,.0f} MiB ({share})"
        f"  dead letters {dead.total}{f' ({codes})' if codes else ''}",
        f"today: {costs.requests:,} requests, {costs.tokens:,} tokens, attributed {costs.attributed:.2f}, "
        f"rent {costs.rent:.2f}{saved}",
    )
    return [plain(line) for line in lines]
