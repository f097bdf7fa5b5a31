"""The report of an evaluation as a page. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from calibration.artifacts.evaluation_report import Report, TierReport
from calibration.artifacts.hardware import speed_of_another
from calibration.artifacts.html_report import Section, html_page
from calibration.artifacts.metrics import METRICS, metric_of
from calibration.evaluate.prompt_table import WorstText
from calibration.evaluate.report_table import rows

# Characters of a text that are shown.
_EXCERPT = 100
_NOTES = (
    "Brackets are 95 % intervals: bootstrap over passages of up to 256 tokens for text, Wilson's for shares of right "
    "answers, Bonett and Price's for their ratio and difference.",
    "Differences and accuracy recoveries are paired: tier and reference on the same passages and problems. +a -b: only "
    "the tier, only the reference was right; p is McNemar's exact one.",
)


def evaluation_page(report: Report, png: bytes, worst: Mapping[str, Sequence[WorstText]] | None = None) -> str:
    """Return the page; `worst` has for each tier the texts on which it loses most."""
    checkpoints = {tier.tier: f"{tier.checkpoint} (sha256 {tier.digest[:12]}…)" for tier in report.tiers}
    facts = {
        "Checkpoints": checkpoints,
        "Hardware of the tiers": {tier.tier: _hardware(tier, report) for tier in report.tiers if tier.hardware},
        "Machine": report.machine,
        "Versions": report.versions,
        "Sources (sha256)": {_where(report, name): sha256 for name, sha256 in report.sources.items()},
        "Settings": {name: json.dumps(value) for name, value in report.settings.items()},
    }
    sections = [
        Section(heading="Quality over cost or size", png=png),
        Section(
            heading="Metrics",
            header=["metric", *(tier.tier for tier in report.tiers)],
            rows=[[row.title, *row.cells] for row in rows(report)],
        ),
        *_verdicts(report),
        *(_worst_texts(tier, texts) for tier, texts in (worst or {}).items() if texts),
        *(Section(heading=f"{name} could not be measured", text=reason) for name, reason in report.failed.items()),
        *(Section(heading=heading, rows=list(items.items())) for heading, items in facts.items()),
    ]
    summary = f"{report.made_at}, {report.seconds:g} s, against {report.reference}."
    return html_page(f"{report.model}: evaluation", summary, sections, [*_NOTES, *_metric_notes(report)])


def _where(report: Report, source: str) -> str:
    return f"{source}: {report.source_names[source]}" if source in report.source_names else source


def _worst_texts(tier: str, texts: Sequence[WorstText]) -> Section:
    rows = [
        [
            item.text.id,
            item.text.kind,
            item.text.group,
            f"{item.loss.start}",
            f"{item.loss.kl:.4f}",
            _excerpt(item.loss.begins),
        ]
        for item in texts
    ]
    header = ["text", "kind", "group", "from token", "KL", "passage"]
    return Section(heading=f"Where {tier} is furthest from the reference", header=header, rows=rows)


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _EXCERPT else words[:_EXCERPT] + "…"


def _verdicts(report: Report) -> list[Section]:
    """Return why checkpoints would be refused, what judged nothing, and how they compare with what is served."""
    verdicts = [
        [tier.tier, text]
        for tier in report.tiers
        if tier.verdict is not None
        for text in tier.verdict.reasons or ("passes", *tier.verdict.notes)
    ]
    replaced = [
        [tier.tier, tier.incumbent.tier, name, f"{more.difference:+.3g} [{more.low:+.3g}, {more.high:+.3g}]"]
        for tier in report.tiers
        if tier.incumbent is not None
        for name, more in tier.incumbent.compared.items()
    ]
    header = ["checkpoint", "served", "metric", "checkpoint - served"]
    sections = [Section(heading="Verdict of publish, under the settings of this evaluation", rows=verdicts)]
    sections += [Section(heading="Against what is served", header=header, rows=replaced)] if replaced else []
    return sections if verdicts else []


def _hardware(tier: TierReport, report: Report) -> str:
    elsewhere = speed_of_another(tier.hardware, report.machine)
    return f"{tier.hardware}; speed is not the tier's, and cost is unknown: {elsewhere}" if elsewhere else tier.hardware


def _metric_notes(report: Report) -> list[str]:
    measured = {metric_of(name) for tier in report.tiers for name in tier.metrics}
    return [metric.note for name, metric in METRICS.items() if metric.note and name in measured]
