"""The quality-cost plot as PNG. The only file that imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from calibration.artifacts.evaluation_report import Estimate, Report, TierReport
from calibration.artifacts.hardware import speed_of_another
from calibration.artifacts.metrics import METRICS, Better, metric_of
from calibration.artifacts.png import plain, png_of

_COST, _SIZE = "cost_per_mtok", "memory_bytes.weights"
_MARKERS = "osD^vP*X"
_COLOURS = colormaps["tab20"].colors  # type: ignore[attr-defined]  # of a ListedColormap
_MB = 1e6


def quality_cost_png(report: Report) -> bytes:
    """Draw one panel for each measure of quality, over what a million tokens cost; a tier looks the same in all.

    Where a tier other than the reference has no price, over the size of its weights.
    """
    across = _COST if _has_cost(report) else _SIZE
    names = list(dict.fromkeys(name for tier in report.tiers for name in tier.metrics if _is_quality(name)))
    columns = math.ceil(math.sqrt(max(1, len(names))))
    rows = max(1, math.ceil(len(names) / columns))
    canvas = Canvas(figsize=(3.8 * columns + 2.4, 3.4 * rows + 0.4), layout="constrained")
    panels = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        _draw(axes, report, name, across)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        canvas.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    canvas.supxlabel(axis_label(report, across), fontsize=10)
    over = "cost" if across == _COST else "size"
    canvas.suptitle(f"{report.model}: quality over {over}, with 95 % intervals", fontsize=11)
    return png_of(canvas)


def axis_label(report: Report, across: str) -> str:
    """Return what the axis shows, and why it is not cost where it is not."""
    if across == _COST:
        return "price of a million tokens (log)"
    elsewhere = (text for tier in _judged(report) if (text := speed_of_another(tier.hardware, report.machine)))
    return f"weights, MB (log); cost is unknown: {next(elsewhere, 'a tier has no price')}"


def _has_cost(report: Report) -> bool:
    return bool(_judged(report)) and all(_COST in tier.metrics for tier in _judged(report))


def _judged(report: Report) -> list[TierReport]:
    return [tier for tier in report.tiers if tier.tier != report.reference]


def _is_quality(name: str) -> bool:
    metric = METRICS[metric_of(name)]
    return metric.is_quality and metric.better is not Better.AGREEMENT


def _draw(axes: Axes, report: Report, name: str, across: str) -> None:
    """Draw one metric: shares as they are, where less is better the accuracy recovery."""
    metric = METRICS[metric_of(name)]
    kept = metric.better is Better.LOWER
    meaning = f": {report.reference} / tier" if kept else ": share of right answers" if metric.is_share else ""
    axes.set_title(f"{plain(name)}{meaning}", fontsize=9)
    axes.grid(alpha=0.3)
    if kept:
        axes.axhline(1, color="grey", linestyle="--", linewidth=1)
    xs = []
    for index, tier in enumerate(report.tiers):
        if not (figure := (tier.recovery if kept else tier.metrics).get(name)):
            continue
        colour = _COLOURS[index % len(_COLOURS)]
        if not (x := tier.metrics.get(across)):
            axes.axhline(figure.value, color=colour, linestyle=":", label=f"{tier.tier} (no price)")
            continue
        unit = 1 if across == _COST else _MB
        xs.append(x.value / unit)
        axes.errorbar(
            [xs[-1]],
            [figure.value],
            xerr=_errors(x, unit),
            yerr=_errors(figure),
            marker=_MARKERS[index % len(_MARKERS)],
            color=colour,
            label=tier.tier,
            linestyle="none",
            markersize=5,
            capsize=2,
            linewidth=1,
        )
    _scale(axes, xs)


def _scale(axes: Axes, xs: Sequence[float]) -> None:
    if not xs or min(xs) <= 0:  # no axis is logarithmic over nothing
        return
    axes.set_xlim(min(xs) / 1.2, max(xs) * 1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.xaxis.set_minor_formatter("{x:.3g}")
    axes.tick_params(which="both", labelsize=7)


def _errors(figure: Estimate, unit: float = 1) -> list[list[float]]:
    return [[(figure.value - figure.low) / unit], [(figure.high - figure.value) / unit]]
