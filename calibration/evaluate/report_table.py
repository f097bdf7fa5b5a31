"""A report as rows of text, for the terminal and the page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from calibration.artifacts.evaluation_report import Comparison, Estimate, Report, TierReport
from calibration.artifacts.metrics import METRICS, Better, metric_of


class _Row(NamedTuple):
    """One line of a table: a cell for every tier; '' where there is no such figure."""

    title: str
    cells: list[str]


def rows(report: Report) -> list[_Row]:
    """Return every metric with its interval, under it the accuracy recovery and the difference; then the verdict."""
    fullest_first = sorted(report.tiers, key=lambda tier: -len(tier.metrics))  # its order keeps what belongs together
    names = list(dict.fromkeys(name for tier in fullest_first for name in tier.metrics))
    lines = [line for name in names for line in _rows(name, report.tiers)]
    lines.append(_Row("verdict of publish", [_verdict(tier) for tier in report.tiers]))
    return [line for line in lines if any(line.cells)]


def _verdict(tier: TierReport) -> str:
    if tier.verdict is None:
        return ""
    return "refused" if tier.verdict.reasons else "passes"


def _rows(name: str, tiers: Sequence[TierReport]) -> list[_Row]:
    values = _Row(name, [_value(name, tier.metrics.get(name)) for tier in tiers])
    differences = _Row("  difference", [_more(name, tier.compared.get(name)) for tier in tiers])
    if METRICS[metric_of(name)].better is Better.AGREEMENT:  # is against the reference already
        return [values, differences]
    return [values, _Row("  of the reference", [_kept(tier.recovery.get(name)) for tier in tiers]), differences]


def _value(name: str, figure: Estimate | None) -> str:
    if figure is None:
        return ""
    metric = METRICS[metric_of(name)]
    value = metric.show_measured(figure.value)
    return value if figure.low == figure.high else f"{value} [{metric.show(figure.low)}, {metric.show(figure.high)}]"


def _kept(figure: Estimate | None) -> str:
    return "" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _more(name: str, compared: Comparison | None) -> str:
    if compared is None:
        return ""
    scale, unit = (100, " points") if METRICS[metric_of(name)].is_share else (1, "")
    text = f"{scale * compared.difference:+.3g} [{scale * compared.low:+.3g}, {scale * compared.high:+.3g}]{unit}"
    if compared.p is None:
        return text
    return f"{text}, +{compared.better} -{compared.worse}, p {compared.p:.2g}"
