"""An audit as a page: tables and plots. Pure but for reading the plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from calibration.artifacts.html_report import Section, html_page
from calibration.audit.aggregate import ALL, digits
from calibration.audit.features import FEATURES
from calibration.terminal.escape import printable

_TITLES = {
    "entropy": "Where the threshold cuts",
    "floors": "Where the policy sends what",
    "entropy_and_length": "Is it entropy, or length?",
    "features": "Every feature",
    "entropy_by_tier": "The entropy of what each tier served",
    "floors_by_tier": "Where the policy sends what each tier served",
    "features_by_tier": "Every feature of what each tier served",
}


def audit_page(figures: dict[str, Any], source: str, plots: Iterable[Path]) -> str:  # Any: JSON
    policy, above = figures["policy"], figures["above_entropy_bits"]
    summary = (
        f"Source: {source}. Policy: {policy['name']}, entropy_bits {policy['entropy_bits']:g}; "
        f"{figures['with_an_envelope']} prompts with another envelope than the default. "
        f"{above:.1%} of the prompts have more bits per byte. {figures['cut']} were longer than is looked at."
    )
    served = "by the tier that served it"
    sections = [
        _section("Entries that are no prompts", ["reason", "entries"], list(map(_row, figures["skipped"].items()))),
        _floors_section("Floor tier by kind", figures["floors_by_kind"], figures["kinds"]),
        _floors_section(f"Floor tier {served}", figures["floors_by_tier"], figures["tiers"]),
        _shares_section("Floor tier by the rule that chose it", "rule", figures["floors_by_rule"], figures["ladder"]),
        _shares_section(
            "Floor tier under another entropy_bits", "bits per byte", figures["floors_by_threshold"], figures["ladder"]
        ),
        *(Section(heading=_TITLES[plot.stem], png=plot.read_bytes()) for plot in plots),
        _features_section("Medians by kind", figures, "kind"),
        _features_section(f"Medians {served}", figures, "tier"),
    ]
    notes = [f"{feature.name}: {feature.meaning}" for feature in FEATURES]
    shown = [section for section in sections if section.png or section.rows]
    return html_page(f"Audit of {figures['prompts']} prompts", summary, shown, notes)


def _floors_section(heading: str, floors: dict[str, dict[str, float]], counts: dict[str, int]) -> Section:
    tiers = list(floors[ALL])
    total = sum(counts.values())
    rows = [
        [name, str(counts.get(name, total)), *(f"{shares[tier]:.1%}" for tier in tiers)]
        for name, shares in floors.items()
    ]
    return _section(heading, ["", "prompts", *tiers], rows)


def _shares_section(
    heading: str, header: str, shares_by: dict[str, dict[str, float]], ladder: Sequence[str]
) -> Section:
    rows = [[name, *(f"{shares[tier]:.1%}" for tier in ladder)] for name, shares in shares_by.items()]
    return _section(heading, [header, *ladder], rows)


def _features_section(heading: str, figures: dict[str, Any], part: str) -> Section:  # Any: JSON
    """Show the medians by kind or by tier."""
    names = [ALL, *figures[f"{part}s"]]
    rows = []
    for feature in FEATURES:
        spreads = figures[f"features_by_{part}"][feature.name]
        rho = figures["correlation_with_entropy"].get(feature.name)
        spread = f"{digits(spreads[ALL]['p5'])} to {digits(spreads[ALL]['p95'])}"
        medians = [digits(spreads[name]["p50"]) for name in names]
        rows.append([feature.name, *medians, spread, "" if rho is None else f"{rho:+.2f}"])
    return _section(heading, ["median", *names, "5 % to 95 %", "Spearman with entropy"], rows)


def _row(item: tuple[str, int]) -> list[str]:
    reason, count = item
    return [reason, str(count)]


def _section(heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Section:
    """Return a table; a log's own words are shown with control characters spelled out."""
    cells = [list(map(printable, row)) for row in rows]
    return Section(heading=heading, header=list(map(printable, header)), rows=cells)
