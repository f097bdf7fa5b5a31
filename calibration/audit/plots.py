"""The plots of an audit. The only file of the audit that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bitladder.routing.features import Feature
from bitladder.settings.policy_section import PolicySettings
from calibration.artifacts.png import plain
from calibration.audit.aggregate import ALL, UNKNOWN, groups
from calibration.audit.features import FEATURES, NAMES, Numbers
from calibration.audit.load_prompts import AuditedPrompt

# Okabe and Ito's colours, which people who see fewer colours tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_THRESHOLD = "#B00020"
_DPI = 110
_BY_TIER = "the tier that served it"


def draw_all(
    folder: Path,
    prompts: Sequence[AuditedPrompt],
    numbers: Numbers,
    policy: PolicySettings,
    figures: dict[str, Any],  # Any: JSON
) -> list[Path]:
    """Write every plot and return their paths; those by tier only where the log names tiers."""
    by_kind, by_tier = groups(prompts, "kind"), groups(prompts, "tier")
    drawn = {
        "entropy": _draw_entropy(numbers, by_kind, policy, "kind"),
        "floors": _draw_floors(figures["floors_by_kind"], "kind"),
        "entropy_and_length": _draw_scatter(numbers, by_kind, policy),
        "features": _draw_features(numbers, by_kind, policy, "kind"),
    }
    if list(by_tier) != [UNKNOWN]:
        drawn |= {
            "entropy_by_tier": _draw_entropy(numbers, by_tier, policy, _BY_TIER),
            "floors_by_tier": _draw_floors(figures["floors_by_tier"], _BY_TIER),
            "features_by_tier": _draw_features(numbers, by_tier, policy, _BY_TIER),
        }
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"{name}.png")
        FigureCanvasAgg(figure).print_figure(paths[-1], dpi=_DPI, metadata={"Software": None})
    return paths


def _draw_entropy(numbers: Numbers, places_of: dict[str, list[int]], policy: PolicySettings, what: str) -> Figure:
    figure, axes = _single(f"Byte entropy of the prompts, by {what}")
    values = numbers[:, NAMES.index("entropy")]
    # No bin lies across the threshold.
    below, beyond = (
        np.floor((values.min() - policy.entropy_bits) * 10),
        np.ceil((values.max() - policy.entropy_bits) * 10),
    )
    bins = policy.entropy_bits + np.arange(below, max(beyond, below + 1) + 1) / 10
    axes.hist(
        [values[places] for places in places_of.values()],
        bins=bins.tolist(),
        stacked=True,
        label=[f"{plain(name)} ({len(places)})" for name, places in places_of.items()],
        color=[_colour(at) for at in range(len(places_of))],
        edgecolor="white",
        linewidth=0.4,
    )
    above = float((values > policy.entropy_bits).mean())
    axes.axvline(policy.entropy_bits, color=_THRESHOLD, linestyle="--", linewidth=1.5)
    axes.margins(y=0.18)
    top = axes.get_ylim()[1]
    for text, side, offset in (
        (f"{1 - above:.0%} at or below ", "right", -0.02),
        (f" {above:.0%} above", "left", 0.02),
    ):
        axes.text(policy.entropy_bits + offset, top * 0.96, text, ha=side, va="top", color=_THRESHOLD)
    axes.set_xlabel(f"bits per byte; dashed: policy.entropy_bits = {policy.entropy_bits:g}")
    axes.set_ylabel("prompts")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw_floors(floors: dict[str, dict[str, float]], what: str) -> Figure:
    figure, axes = _single(f"Floor tier under the policy, by {what}", height=1.6 + 0.4 * len(floors))
    names = list(reversed(floors))
    left = np.zeros(len(names))
    for at, tier in enumerate(floors[ALL]):
        widths = np.array([100 * floors[name][tier] for name in names])
        axes.barh([plain(name) for name in names], widths, left=left, color=_colour(at), label=tier)
        for row, width in enumerate(widths):
            if width >= 4:
                axes.text(left[row] + width / 2, row, f"{width:.0f}", ha="center", va="center", color=_ink(_colour(at)))
        left += widths
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of prompts")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw_scatter(numbers: Numbers, by_kind: dict[str, list[int]], policy: PolicySettings) -> Figure:
    figure, axes = _single("Byte entropy against length")
    entropy, length = numbers[:, NAMES.index("entropy")], numbers[:, NAMES.index("characters")]
    for at, (kind, places) in enumerate(by_kind.items()):
        axes.scatter(
            length[places], entropy[places], s=12, alpha=0.6, linewidths=0, color=_colour(at), label=plain(kind)
        )
    reach = np.geomspace(max(1.0, length.min()), length.max() + 1, 200)
    axes.plot(reach, np.minimum(8, np.log2(reach)), color="#999999", linewidth=1, label="most possible")
    axes.axhline(policy.entropy_bits, color=_THRESHOLD, linestyle="--", linewidth=1.5, label="policy.entropy_bits")
    _log(axes)
    axes.set_ylim(max(0.0, entropy.min() - 0.3), entropy.max() + 0.5)
    axes.set_xlabel("characters")
    axes.set_ylabel("bits per byte")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw_features(numbers: Numbers, places_of: dict[str, list[int]], policy: PolicySettings, what: str) -> Figure:
    columns = 2
    rows = -(-len(FEATURES) // columns)
    figure = Figure(figsize=(10, rows * (1.0 + 0.26 * len(places_of))), layout="constrained")
    figure.suptitle(f"Every feature, by {what}: box from 25 % to 75 %, line at 50 %, whiskers at 5 % and 95 %")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for at, feature in enumerate(FEATURES):
        _boxes(axes[at], feature, numbers[:, at], places_of)
    axes[NAMES.index("entropy")].axvline(policy.entropy_bits, color=_THRESHOLD, linestyle="--", linewidth=1.5)
    for spare in axes[len(FEATURES) :]:
        spare.set_axis_off()
    return figure


def _boxes(axes: Axes, feature: Feature, values: Numbers, places_of: dict[str, list[int]]) -> None:
    names = list(reversed(places_of))
    boxes = axes.boxplot(
        [values[places_of[name]] for name in names],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        widths=0.6,
        tick_labels=[plain(name) for name in names],
        medianprops={"color": "black"},
    )
    for at, box in enumerate(boxes["boxes"]):
        box.set_facecolor(_colour(len(names) - 1 - at))
    axes.set_title(f"{feature.name}: {feature.meaning.partition(':')[0]}", fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    _clean(axes)
    if feature.is_long and values.any():  # no axis is logarithmic over nothing but zeros
        _log(axes)


def _single(title: str, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _log(axes: Axes) -> None:
    """Make an axis logarithmic, with ticks at 1, 2 and 5 in plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _ink(background: str) -> str:
    """Return black or white, whichever is read better on this colour."""
    red, green, blue = to_rgb(background)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _colour(at: int) -> str:
    return _COLOURS[at % len(_COLOURS)]
