"""A report as rows of text: what the terminal and the page show. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from calibration.artifacts.metrics import metric_of
from calibration.artifacts.report import Comparison, Figure, Report, TierReport

_PERCENT = ("top1", "pass_at_1", "task")


class Row(NamedTuple):
    """One line of a table: a cell for every tier; '' where there is no such figure."""

    title: str
    cells: list[str]


def rows(report: Report) -> list[Row]:
    """Return every metric with its interval, and under it what is kept of the reference."""
    fullest_first = sorted(report.tiers, key=lambda tier: -len(tier.metrics))  # its order keeps what belongs together
    names = list(dict.fromkeys(name for tier in fullest_first for name in tier.metrics))
    lines = [line for name in names for line in _rows(name, report.tiers)]
    return [line for line in lines if any(line.cells)]


def _rows(name: str, tiers: Sequence[TierReport]) -> list[Row]:
    values = Row(name, [_value(name, tier.metrics.get(name)) for tier in tiers])
    differences = Row("  difference", [_more(name, tier.compared.get(name)) for tier in tiers])
    if metric_of(name) == "top1":  # is of the reference already
        return [values, differences]
    return [values, Row("  of the reference", [_kept(tier.recovery.get(name)) for tier in tiers]), differences]


def _value(name: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    text = _number(name, figure.value)
    if figure.low == figure.high:
        return text
    return f"{text} [{_number(name, figure.low)}, {_number(name, figure.high)}]"


def _number(name: str, value: float) -> str:
    if metric_of(name) in _PERCENT:
        return f"{100 * value:.1f} %"
    if metric_of(name) == "memory_bytes":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.4f}" if metric_of(name) == "kl_mean" else f"{value:.4g}"


def _kept(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _more(name: str, compared: Comparison | None) -> str:
    if compared is None:
        return ""
    scale, unit = (100, " points") if metric_of(name) in _PERCENT else (1, "")
    text = f"{scale * compared.difference:+.3g} [{scale * compared.low:+.3g}, {scale * compared.high:+.3g}]{unit}"
    if compared.p is None:
        return text
    return f"{text}, +{compared.better} -{compared.worse}, p {compared.p:.2g}"
