"""An audit as one HTML file: tables, and the plots in it. It loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from calibration.audit.aggregate import ALL, digits
from calibration.audit.features import FEATURES
from calibration.terminal.escape import shown

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } img { max-width: 100%; height: auto } small { color: #555 }
"""
_TITLES = {
    "entropy": "Where the threshold cuts",
    "floors": "Where the policy sends what",
    "entropy_and_length": "Is it entropy, or length?",
    "features": "Every feature",
    "entropy_by_tier": "The entropy of what each tier served",
    "floors_by_tier": "Where the policy sends what each tier served",
    "features_by_tier": "Every feature of what each tier served",
}


_NOTES = "; ".join(f"{feature.name}: {feature.meaning}" for feature in FEATURES)


def write_page(path: Path, figures: dict[str, Any], source: str, plots: Iterable[Path]) -> None:  # Any: JSON
    path.write_text(render(figures, source, plots), encoding="utf-8")


def render(figures: dict[str, Any], source: str, plots: Iterable[Path]) -> str:  # Any: JSON
    policy, above = figures["policy"], figures["above_entropy_bits"]
    images = "".join(f"<h2>{_TITLES[plot.stem]}</h2>{_image(plot)}" for plot in plots)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Audit of prompts</title>'
        f"<style>{_STYLE}</style></head><body><h1>Audit of {figures['prompts']} prompts</h1>"
        f"<p>Source: {escape(source)}. Policy: {escape(policy['name'])}, entropy_bits {policy['entropy_bits']:g}; "
        f"{figures['with_an_envelope']} prompts with another envelope than the default. "
        f"{above:.1%} of the prompts have more bits per byte. {figures['cut']} were longer than is looked at.</p>"
        f"{_skipped(figures['skipped'])}"
        f"<h2>Floor tier by kind</h2>{floors_table(figures['floors_by_kind'], figures['kinds'])}"
        f"<h2>Floor tier by the tier that served it</h2>{floors_table(figures['floors_by_tier'], figures['tiers'])}"
        f"{images}<h2>Medians by kind</h2>{features_table(figures, 'kind')}"
        f"<h2>Medians by the tier that served it</h2>{features_table(figures, 'tier')}"
        f"<small>{escape(_NOTES)}</small></body></html>\n"
    )


def floors_table(floors: dict[str, dict[str, float]], counts: dict[str, int]) -> str:
    tiers = list(floors[ALL])
    total = sum(counts.values())
    rows = [
        [name, str(counts.get(name, total)), *(f"{its[tier]:.1%}" for tier in tiers)] for name, its in floors.items()
    ]
    return _table(["", "prompts", *tiers], rows)


def features_table(figures: dict[str, Any], part: str) -> str:  # Any: JSON
    """Show the medians by kind or by tier."""
    names = [ALL, *figures[f"{part}s"]]
    rows = []
    for feature in FEATURES:
        its, follows = (
            figures[f"features_by_{part}"][feature.name],
            figures["correlation_with_entropy"].get(feature.name),
        )
        spread = f"{digits(its[ALL]['p5'])} to {digits(its[ALL]['p95'])}"
        medians = [digits(its[name]["p50"]) for name in names]
        rows.append([feature.name, *medians, spread, "" if follows is None else f"{follows:+.2f}"])
    return _table(["median", *names, "5 % to 95 %", "Spearman with entropy"], rows)


def _skipped(skipped: dict[str, int]) -> str:
    if not skipped:
        return ""
    rows = [[reason, str(times)] for reason, times in skipped.items()]
    return f"<h2>Entries that are no prompts</h2>{_table(['reason', 'entries'], rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(shown(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(shown(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(_TITLES[path.stem])}" src="data:image/png;base64,{data}">'
