"""The plots of an ablation, as PNG. The only file of it that imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from calibration.artifacts.png import plain, png_of
from calibration.control.ablation.within_kinds import GRID

Figures = dict[str, Any]  # JSON
_TITLES = {"random": "folds by chance, bands by prompt", "source": "folds by source, bands by source"}
_INTERVALS = {"random": "by_prompt", "source": "by_source"}
_FIXED = {"random": ("#777777", "--"), "oracle": ("#000000", "-")}
_COLOURS = colormaps["tab20"].colors  # type: ignore[attr-defined]  # of a ListedColormap
_MAX_KINDS = 12


def curves_png(report: Figures) -> bytes:
    """Draw what remains of the loss over cost, a panel for each split."""
    splits = report["splits"]
    canvas = Canvas(figsize=(6.2 * len(splits) + 2.6, 5.4), layout="constrained")
    panels = canvas.subplots(1, len(splits), squeeze=False, sharey=True)[0]
    for axes, (split, figures) in zip(panels, splits.items(), strict=True):
        _draw_split(axes, report, split, figures)
    panels[0].set_ylabel(f"added loss ({report['measure']}), as a share of all on {report['ladder'][0]}")
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    canvas.supxlabel("mean cost of a request", fontsize=10)
    return png_of(canvas)


def kinds_png(report: Figures) -> bytes | None:
    """Draw small multiples of the largest kinds, on folds by source where there are some; None without kinds."""
    split = report["splits"].get("source") or report["splits"]["random"]
    policies = split["policies"]
    names = [name for name in ("random", "entropy", split["best_router"], "policy", "oracle") if name in policies]
    shown = {name: policies[name]["within_kinds"]["kinds"] for name in names if policies[name]["within_kinds"]}
    kinds = list(shown.get("oracle", {}))[:_MAX_KINDS]
    if not kinds:
        return None
    columns = min(4, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    canvas = Canvas(figsize=(2.9 * columns, 2.5 * rows + 0.6), layout="constrained")
    panels = list(canvas.subplots(rows, columns, squeeze=False, sharex=True).flat)
    costs = np.linspace(report["costs"][report["ladder"][0]], report["costs"][report["ladder"][-1]], GRID)
    for axes, kind in zip(panels, kinds, strict=False):
        for at, (name, figures) in enumerate(shown.items()):
            colour, line = _FIXED.get(name, (_COLOURS[2 * at % 20], "-"))
            axes.plot(costs, _known(figures[kind]["remaining"]), line, color=colour, label=name, linewidth=1.2)
        axes.set_title(f"{plain(kind[:32])} ({shown['oracle'][kind]['labels']})", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    canvas.supylabel(f"added loss, as a share of all on {report['ladder'][0]}", fontsize=9)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(shown), fontsize=8)
    return png_of(canvas)


def _draw_split(axes: Axes, report: Figures, split: str, figures: Figures) -> None:
    axes.set_title(_TITLES[split], fontsize=10)
    axes.grid(alpha=0.3)
    for at, (name, policy) in enumerate(_drawn(figures["policies"])):
        sees_answer = name.startswith(("cascade", "stacked"))
        colour, line = _FIXED.get(name, (_COLOURS[at % 20], "-." if sees_answer else "-"))
        costs, points = policy["curve"]["costs"], policy["curve"]["remaining"]
        axes.plot(costs, _known([point and point["value"] for point in points]), line, color=colour, label=name)
        if name in ("entropy", "policy", figures["best_router"]):
            ends = [(point and point[_INTERVALS[split]]) or (None, None) for point in points]
            low, high = (_known(list(side)) for side in zip(*ends, strict=True))
            axes.fill_between(costs, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, marker in (("article", "*"), ("policy", "P")):
        if point := report[name]:
            axes.plot(
                point["cost"]["value"], _known([point["remaining"] and point["remaining"]["value"]])[0], marker,
                color="#B00020", markersize=10, linestyle="none", label=f"{name}, as it serves",
            )  # fmt: skip


def _drawn(policies: Figures) -> Iterator[tuple[str, Figures]]:
    """Yield what is drawn: of policies that differ in their number of tokens alone, the one with the largest area."""
    best: dict[str, float] = {}
    for name, policy in policies.items():
        if policy["after_tokens"]:
            best[_alike(name)] = max(best.get(_alike(name), -math.inf), _area(policy))
    for name, policy in policies.items():
        if not policy["after_tokens"] or _area(policy) == best[_alike(name)]:
            yield name, policy


def _alike(name: str) -> str:
    return name.rpartition(" after ")[0]


def _area(policy: Figures) -> float:
    return -math.inf if policy["area_share"] is None else float(policy["area_share"]["value"])


def _known(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
