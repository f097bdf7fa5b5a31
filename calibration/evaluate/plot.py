"""The quality-cost plot as PNG. The only file that imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from calibration.report import Figure, Report, TierReport

_COST, _SIZE = "cost_per_mtok", "memory_bytes.weights"
_MARKERS = "osD^vP"


def quality_cost_png(report: Report) -> bytes:
    """Draw what every tier keeps of the reference, and what it gets right, over what a million tokens cost.

    Where no tier has a price, over the size of its weights. A tier without a price is a line: it can be reached, at no
    cost that is known.
    """
    across = _COST if any(_COST in tier.metrics for tier in report.tiers) else _SIZE
    canvas = Canvas(figsize=(11, 4.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    _draw(left, report, across, [name for name in _names(report) if name.startswith("perplexity.")], kept=True)
    left.axhline(1, color="grey", linestyle="--", linewidth=1)
    left.set_ylabel(f"perplexity of {report.reference} / perplexity of the tier")
    shares = [name for name in _names(report) if name == "pass_at_1" or name.startswith("task.")]
    _draw(right, report, across, shares, kept=False)
    right.set_ylabel("share of right answers")
    for axes in (left, right):
        axes.set_xlabel("price of a million tokens (log)" if across == _COST else "bytes of weights (log)")
        axes.grid(alpha=0.3)
    canvas.suptitle(f"{report.model}: quality over cost, with 95 % intervals")
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _names(report: Report) -> list[str]:
    return list(dict.fromkeys(name for tier in report.tiers for name in tier.metrics))


def _draw(axes: Axes, report: Report, across: str, names: Sequence[str], *, kept: bool) -> None:
    places: dict[str, float] = {}
    for index, name in enumerate(names):
        colour = f"C{index}"
        points = [(tier, figure) for tier in report.tiers if (figure := _figure(tier, name, kept=kept))]
        placed = [(tier.tier, tier.metrics[across], figure) for tier, figure in points if across in tier.metrics]
        placed.sort(key=lambda point: point[1].value)
        if placed:
            style = f"{_MARKERS[index % len(_MARKERS)]}-"
            xs, ys = [x for _, x, _ in placed], [y for _, _, y in placed]
            values = [x.value for x in xs], [y.value for y in ys]
            axes.errorbar(*values, xerr=_errors(xs), yerr=_errors(ys), fmt=style, color=colour, capsize=3, label=name)
        for tier, figure in points:
            if across not in tier.metrics:
                axes.axhline(figure.value, color=colour, linestyle=":", label=f"{name}, {tier.tier} (no price)")
        places |= {tier: x.value for tier, x, _ in placed}
    _name_tiers(axes, places)
    if axes.lines:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)


def _name_tiers(axes: Axes, places: dict[str, float]) -> None:
    """Write the tiers above where they stand: the points of one tier are above each other."""
    if places:  # no axis is logarithmic over nothing, or over a single point without limits
        axes.set_xlim(min(places.values()) / 1.2, max(places.values()) * 1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    for tier, x in places.items():
        axes.annotate(tier, (x, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=9)


def _figure(tier: TierReport, name: str, *, kept: bool) -> Figure | None:
    return (tier.recovery if kept else tier.metrics).get(name)


def _errors(figures: Sequence[Figure]) -> list[list[float]]:
    return [[one.value - one.low for one in figures], [one.high - one.value for one in figures]]
