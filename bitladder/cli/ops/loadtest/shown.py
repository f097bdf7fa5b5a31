"""How a run is shown: while it goes on, at its end, and its pairs of entropy and latency as a file."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bitladder.cli.ops.loadtest.load_report import Report, statistics
from bitladder.cli.ops.loadtest.request_sample import Sample
from bitladder.cli.ops.loadtest.sending import LoadRun
from calibration.terminal.tabular import Row, plain, table

_LINE_S, _FRAME_S = 5.0, 0.5
# Live figures are of the last requests.
_RECENT = 500
_PAIRS = (
    "entropy",
    "latency_s",
    "ttft_s",
    "tier",
    "floor",
    "kind",
    "mode",
    "prompt_tokens",
    "completion_tokens",
    "due_s",
)


@contextlib.asynccontextmanager
async def watched(run: LoadRun, duration_s: float) -> AsyncIterator[None]:
    """Show how far a run is: a table on a terminal, else a line every 5 s; on stderr."""
    console = Console(stderr=True)
    task = asyncio.create_task(_frames(run, console, duration_s) if console.is_terminal else _lines(run, duration_s))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _lines(run: LoadRun, duration_s: float) -> None:
    while True:
        await asyncio.sleep(_LINE_S)
        typer.echo(f"{_progress(run, duration_s)}; {', '.join(_latencies(run.samples[-_RECENT:]))}", err=True)


async def _frames(run: LoadRun, console: Console, duration_s: float) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_page(run, duration_s), refresh=True)
            await asyncio.sleep(_FRAME_S)


def _page(run: LoadRun, duration_s: float) -> Table:
    grid, recent = Table.grid(padding=(0, 1)), run.samples[-_RECENT:]
    grid.add_row(_progress(run, duration_s))
    grid.add_row(", ".join(_latencies(recent)))
    tiers = Counter(sample.tier or "unknown" for sample in recent if sample.is_answered)
    grid.add_row("served by " + (", ".join(f"{tier} {count}" for tier, count in tiers.most_common()) or "nobody yet"))
    return grid


def _progress(run: LoadRun, duration_s: float) -> str:
    failed = Counter(sample.code for sample in run.samples if sample.code)
    text = (
        f"{run.now_s:.0f} of {duration_s:.0f} s: {run.sent} sent, {len(run.samples)} ended, {len(run.tasks)} in flight"
    )
    return text + (
        f", failed: {', '.join(f'{count} {code}' for code, count in failed.most_common(3))}" if failed else ""
    )


def _latencies(samples: Sequence[Sample]) -> list[str]:
    answered = [sample for sample in samples if sample.is_answered]
    e2e = statistics(sample.latency_s for sample in answered)
    ttft = statistics(sample.ttft_s for sample in answered if sample.ttft_s is not None)
    named = (("latency", e2e), ("TTFT", ttft))
    return [f"{name} p50 {figures['p50']:.3f} s, p95 {figures['p95']:.3f} s" for name, figures in named if figures] or [
        "no answer yet"
    ]


def show_report(report: Report) -> None:
    """Print a report for people."""
    counts, rates, shares = report["requests"], report["throughput"], report["shares"]
    typer.echo(
        ", ".join(f"{count} {name.replace('_', '-')}" for name, count in counts.items()) + f" in {report['seconds']} s"
    )
    typer.echo(", ".join(f"{name.replace('_', ' ')} {rate:g}/s" for name, rate in rates.items()))
    typer.echo(", ".join(f"{name} {share:.2%}" for name, share in shares.items()))
    columns = ("seconds", "count", "mean", "p50", "p90", "p95", "p99", "max")
    if latency := [_row(name, figures) for name, figures in report["latency"].items() if figures]:
        typer.echo(table(columns, latency))
    for grouping in ("by_tier", "by_entropy", "by_kind"):
        rows = [_group_row(name, group) for name, group in report[grouping].items()]
        columns = (
            grouping.removeprefix("by_"),
            "requests",
            "share",
            "entropy",
            "e2e p50",
            "e2e p95",
            "ttft p95",
            "cost each",
        )
        if rows:
            typer.echo(table(columns, rows))
    for pair in report["overflow"]:
        typer.echo(f"overflow {pair['from']} -> {pair['to']}: {pair['requests']}")
    for code, count in report["errors"].items():
        message = report["messages"].get(code)
        typer.secho(plain(f"{count} {code}" + (f", such as: {message}" if message else "")), fg="red")
    for target in report["targets"]:
        words = "met" if target["met"] else "missed"
        text = f"target {target['name']}: {words}, {target['reached']} (wanted {target['wanted']})"
        typer.secho(text, fg="green" if target["met"] else "red")


def _row(name: str, figures: dict[str, Any]) -> Row:
    return (name, figures["count"], *(f"{figures[key]:.4f}" for key in ("mean", "p50", "p90", "p95", "p99", "max")))


def _group_row(name: str, group: dict[str, Any]) -> Row:
    ttft, cost = group["ttft"], group["cost"]["per_request"]
    latencies = (f"{group['e2e'][key]:.4f}" for key in ("p50", "p95"))
    return (
        name,
        group["requests"],
        f"{group['share']:.1%}",
        group["mean_entropy"],
        *latencies,
        f"{ttft['p95']:.4f}" if ttft else "-",
        "-" if cost is None else f"{cost:.6f}",
    )


def write_pairs(file: Path, samples: Sequence[Sample]) -> None:
    """Write entropy and latency of each answer, as CSV or, where the file is called .json, as JSON."""
    rows = [_pair(sample) for sample in samples if sample.is_answered]
    with file.open("w", encoding="utf-8", newline="") as opened:
        if file.suffix == ".json":
            json.dump([dict(zip(_PAIRS, row, strict=True)) for row in rows], opened, indent=1)
            return
        csv.writer(opened).writerows([_PAIRS, *rows])


def _pair(sample: Sample) -> list[Any]:
    request, ttft_s = sample.request, sample.ttft_s
    times = [round(sample.latency_s, 6), None if ttft_s is None else round(ttft_s, 6)]
    tokens = [sample.prompt_tokens, sample.completion_tokens]
    return [
        request.entropy,
        *times,
        sample.tier,
        sample.floor,
        request.kind,
        request.mode.value,
        *tokens,
        round(sample.due_s, 6),
    ]
