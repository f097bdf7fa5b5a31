"""The demo's tables: a row per request, per tier, per burst. Pure; no wider than a hundred columns."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Column, Table

from bitladder.cli.demo.demo_requests import Served, ServedBatch
from bitladder.settings.models_section import ModelSettings

# Marks a tier that took a request as overflow.
ESCALATED = "↑"
_PROMPT_CHARS = 18


def request_table(requests: Iterable[Served]) -> Table:
    """Return a row for every request."""
    table = _table("request", "floor", "served", "why", "wait", "TTFT", "total", numbers=3)
    table.caption = f"times in ms; {ESCALATED}: overflow of its floor's queue, taken by a higher tier"
    for served in requests:
        job = served.job
        table.add_row(
            " ".join(served.prompt.split())[:_PROMPT_CHARS].replace("[", "\\["),
            job.get("floor") or "",
            f"{job.get('tier') or '-'}{ESCALATED if served.has_escalated else ''}",
            job.get("reason") or served.error[:40].replace("[", "\\["),
            f"{job.get('queue_ms') or 0:.0f}",
            "" if served.ttft_s is None else f"{served.ttft_s * 1000:.0f}",
            f"{served.total_s * 1000:.0f}",
        )
    return table


def tier_table(batch: ServedBatch, model: ModelSettings) -> Table:
    """Return a row for every tier."""
    table = _table(
        *("tier", "hardware", "price/h", "requests", "p50 ms", "p95 ms", "tokens/s", "cost", "overflow taken"),
        numbers=7,
    )
    for tier in model.tiers:
        here = [served for served in batch.served if served.job.get("tier") == tier.name]
        times = [served.total_s * 1000 for served in here]
        table.add_row(
            tier.name,
            tier.hardware,
            f"{tier.price_per_hour:.2f}",
            str(len(here)),
            quantile(times, 50),
            quantile(times, 95),
            f"{sum(served.tokens for served in here) / batch.wall_s:.1f}",
            f"{sum(served.job.get('cost') or 0 for served in here):.6f}",
            str(sum(served.has_escalated for served in here)),
        )
    return table


def burst_table(escalating: ServedBatch, kept: ServedBatch, model: ModelSettings) -> Table:
    """Return a row for the burst whose overflow escalated, and one for the same burst that was kept below."""
    lowest = model.tiers[0].name
    table = _table("burst", *model.ladder, "p50 ms", "p95 ms", "last after s", "cost", numbers=len(model.tiers) + 4)
    rows = {"its overflow escalates": escalating, f"kept at {lowest} by X-Max-Tier": kept}
    for text, batch in rows.items():
        tiers = Counter(served.job.get("tier") for served in batch.served)
        times = [served.total_s * 1000 for served in batch.served]
        table.add_row(
            text,
            *(str(tiers[name]) for name in model.ladder),
            quantile(times, 50),
            quantile(times, 95),
            f"{batch.wall_s:.1f}",
            f"{batch.cost:.6f}",
        )
    return table


def speed_table(batches: Sequence[ServedBatch], model: ModelSettings) -> Table:
    """Return a row for every tier that was asked alone."""
    table = _table("tier alone", "TTFT ms", "tokens/s", "its answer", numbers=0)
    for tier, batch in zip(model.tiers, batches, strict=True):
        served = batch.served[0]
        ttft = "" if served.ttft_s is None else f"{served.ttft_s * 1000:.0f}"
        answer = f"{served.text[:120]}".replace("[", "\\[")
        table.add_row(tier.name, ttft, f"{speed(batch):.1f}", answer)
    return table


def speed(batch: ServedBatch) -> float:
    """Return the tokens a second of a batch, from sending to the last answer."""
    return sum(served.tokens for served in batch.served) / max(served.total_s for served in batch.served)


def quantile(values: Iterable[float], percent: int) -> str:
    """Return a percentile as text; empty for no values."""
    ordered = sorted(values)
    if len(ordered) < 2:
        return "".join(f"{value:.0f}" for value in ordered)
    return f"{statistics.quantiles(ordered, n=100, method='inclusive')[percent - 1]:.0f}"


def _table(*names: str, numbers: int) -> Table:
    """Return a table whose last columns are numbers."""
    first_number = len(names) - numbers
    columns = [
        Column(name, justify="right" if place >= first_number else "left", overflow="fold")
        for place, name in enumerate(names)
    ]
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
