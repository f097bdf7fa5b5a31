"""Several fleets and policies under the same requests: their figures side by side, and the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calibration.artifacts.html_report import Section, html_page

Figures = Mapping[str, Any]  # of one run, as JSON
_NOTES = (
    "Times are those of requests that were served; a good one kept every target (--slo). Shares of tiers are of the "
    "requests served.",
    "Rent is every worker's price for the whole time; attributed is what the busy time cost, shared by the jobs in it.",
)


def compared(runs: Mapping[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Return a table of the runs: its header, and a row for each."""
    ladder = list(dict.fromkeys(row["tier"] for figures in runs.values() for row in figures["tiers"]))
    header = ["run", "p50 s", "p95 s", "ttft p95 s", "good", "refused", "expired", "overflow", "rent", "attributed"]
    header += [f"share {tier}" for tier in ladder]
    return header, [[name, *map(_cell, _values(figures, ladder))] for name, figures in runs.items()]


def _values(figures: Figures, ladder: list[str]) -> list[float | None]:
    total, ended, count = figures["total_s"], figures["ended"], figures["requests"]
    shares = {row["tier"]: row["share"] for row in figures["tiers"]}
    return [
        total["p50"],
        total["p95"],
        figures["ttft_s"]["p95"],
        figures["goodput"]["share"],
        ended["refused"] / count,
        (ended["expired"] + ended["aborted"]) / count,
        figures["overflow"]["share"],
        figures["cost"]["rent"],
        figures["cost"]["attributed"],
        *(shares.get(tier) for tier in ladder),
    ]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def simulation_page(runs: Mapping[str, Figures], latency: bytes, pngs: Mapping[str, bytes]) -> str:
    """Return the page: all runs in a table and a plot of latencies, then each over time."""
    header, rows = compared(runs)
    sections = [Section(heading="Figures", header=header, rows=rows), Section(heading="Latency", png=latency)]
    sections += [Section(heading=f"{name} over time", png=png) for name, png in pngs.items()]
    curves = {row["tier"]: row["curve"] for figures in runs.values() for row in figures["tiers"]}
    fields = ("name", "source", "device", "version", "mode")
    origins = [[tier, *(str(curve[field]) for field in fields)] for tier, curve in curves.items()]
    sections.append(Section(heading="Speeds", header=["tier", *fields], rows=origins))
    first = next(iter(runs.values()))
    summary = f"{first['requests']:,} requests, seed {first['seed']}, in {first['span_s']:g} s of virtual time."
    return html_page("Simulation", summary, sections, _NOTES)
