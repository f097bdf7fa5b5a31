"""The plots of simulated runs, as PNG. The only file of a simulation that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from calibration.artifacts.png import COLOURS, plain, png_of
from calibration.simulation.run_series import Series


def latency_png(runs: Mapping[str, Series]) -> bytes:
    """Draw which share of the requests is answered, and begun, within a time: a line for each run."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title in zip(panels, ("time to the first token, s", "time to the end, s"), strict=True):
        for index, (name, series) in enumerate(runs.items()):
            values = series.ttft_s if axes is panels[0] else series.total_s
            axes.plot(values, series.share, color=COLOURS[index % len(COLOURS)], label=plain(name), linewidth=1.5)
        axes.set_xlabel(title)
        axes.axhline(0.95, color="grey", linewidth=0.7, linestyle="--")
    panels[0].set_ylabel("share of the requests served")
    return _png(figure, panels)


def run_png(series: Series, tiers: Sequence[Mapping[str, Any]]) -> bytes:  # Any: JSON
    """Draw one run over time: what waits, and which tier serves; and what each tier costs."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    waiting, serving, costs = figure.subplots(1, 3)
    bottom = 0 * series.bins_s
    for rank, name in enumerate(series.ladder):
        colour = COLOURS[rank % len(COLOURS)]
        waiting.plot(series.moments_s, series.depth[rank], color=colour, label=f"floor {name}", linewidth=1)
        serving.fill_between(series.bins_s, bottom, bottom + series.served[rank], color=colour, label=name, step="mid")
        bottom = bottom + series.served[rank]
        costs.bar(rank - 0.2, tiers[rank]["rent"], 0.4, color=colour)
        costs.bar(rank + 0.2, tiers[rank]["attributed"], 0.4, color=colour, hatch="//", edgecolor="white")
    waiting.set_ylabel("jobs that wait")
    serving.set_ylabel("share of what begins, by tier")
    for axes in (waiting, serving):
        axes.set_xlabel("seconds")
    costs.set_xticks(range(len(series.ladder)), series.ladder)
    costs.set_ylabel("cost: rent, and attributed (hatched)")
    return _png(figure, (waiting, serving))


def _png(figure: Figure, with_legend: Sequence[Any]) -> bytes:  # Any: Axes, or an array of them
    for axes in with_legend:
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return png_of(figure, dpi=100)
