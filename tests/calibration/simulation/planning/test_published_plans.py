"""What the pages say of published plans is what was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "control"


def page_of(name: str) -> str:
    return " ".join((ROOT / "docs" / "calibration" / name).read_text(encoding="utf-8").split())


def figures_of(name: str) -> Any:  # noqa: ANN401  (JSON)
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_the_page_of_the_articles_fleet_has_the_benchmarks_figures() -> None:
    page, settings = page_of("article-fleet.md"), figures_of("plan_article.json")["settings"]
    ideal, computed, measured = (settings[name] for name in ("ideal", "computed", "measured"))

    def in_words(kind: str, *, digits: int = 0) -> list[str]:
        return [f"{setting[kind]['requests_per_s']:.{digits}f}" for setting in (computed, ideal, measured)]

    assert "serves {} requests a second (ideal: {}, measured: {})".format(*in_words("article_fleet")) in page
    assert "the four H100 {} ({}, {})".format(*in_words("four_h100")) in page
    ratios = [
        f"{setting['per_token_at_saturation']:+.0%}".replace("%", " %") for setting in (computed, ideal, measured)
    ]
    assert "{} (ideal: {}, measured: {}) against four H100 at bf16".format(*ratios) in page
    for name, setting in settings.items():
        shares = [point["tier_shares"]["int4"] for point in setting["over_load"]["cheapest"]]
        loads = [point["value"] for point in setting["over_load"]["cheapest"]]
        row = [shares[loads.index(load)] for load in (2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)]
        assert (
            f"| {name} | {' | '.join(f'{share:.0%}'.replace('%', ' %') if share > 0.005 else '0' for share in row)} |"
            in page
        )
    for load in ("2", "8", "32", "128"):
        prices = [setting["break_even_h100"]["by_load"][load]["price"] for setting in (ideal, computed, measured)]
        assert f"| {load} | {' | '.join(f'{price:.2f}' for price in prices)} |" in page
    saturated = [
        f"{setting['break_even_h100']['article_at_saturation']:.2f}" for setting in (computed, ideal, measured)
    ]
    assert "from ${} on (ideal: ${}, measured: ${})".format(*saturated) in page
    runs = [run for setting in settings.values() for run in setting["simulated"].values()]
    assert min(run["attainment"] for run in runs) >= 0.999
    assert max(run["per_hour"] - run["planned_per_hour"] for run in runs) == pytest.approx(0.7)


def test_the_comparison_with_melange_has_the_benchmarks_figures() -> None:
    page, figures = page_of("plan.md"), figures_of("plan_melange.json")

    def band(part: dict[str, Any]) -> str:
        cells = [[f"{max(0.0, share) * 100:.0f}" for share in part["saving"][name]] for name in ("plotted", "found")]
        return " | ".join(f"{low} to {high} %" for low, high in cells)

    assert figures["one_size"]["workers_at_4.25"] == [1, 2]
    assert f"{figures['one_size']['saving_at_4.25']:.0%}" == "24%"
    for slo, chat in figures["chat"].items():
        assert f"{slo}{' a token: saved against one type' if slo == '120 ms' else ''} | {band(chat)} |" in page
        assert f"{max(abs(ratio - 1) for ratio in chat['mix_found_by_plotted']) * 100:.0f} % at {slo}" in page
    assert f"documents, 120 ms | {band(figures['mixed']['120 ms'])} |" in page
    assert f"the same, 40 ms | {band(figures['mixed']['40 ms'])} |" in page
    within = [chat["counts_within_20_percent"] * 20 for chat in figures["chat"].values()]
    assert f"of the other 40 counts of one type, {sum(within):.0f} are within 20 %" in page
