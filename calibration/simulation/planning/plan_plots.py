"""The plots of a plan's frontiers, as PNG. The only file of the plan that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.artifacts.png import COLOURS, plain, png_of


def frontier_png(frontier: Mapping[str, Any]) -> bytes:  # Any: JSON
    """Draw what the fleets cost, and below it which share of the requests each tier serves."""
    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    costs, shares = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    points = frontier["points"]
    over_load = frontier["varied"] == "load"
    across = [point["requests_per_s" if over_load else "value"] for point in points]
    per = "per_1000_requests" if over_load else "price_per_hour"
    for index, name in enumerate(points[0]["alone"]):
        values = [_scaled(point["alone"][name], point, over_load=over_load) for point in points]
        costs.plot(
            across, values, marker=".", color=COLOURS[index % len(COLOURS)], label=f"only {plain(name)}", linewidth=1
        )
    costs.plot(across, [point[per] for point in points], marker="o", color="black", label="cheapest mix", linewidth=2)
    if not over_load and (price := frontier["break_even"]["price"]):
        costs.axvline(price, color="grey", linestyle="--", label=f"break-even: {price:.3g}")
    costs.set_ylabel("rent of 1,000 requests" if over_load else "rent per hour")
    varied = "load" if over_load else f"price of {plain(frontier['varied'])}"
    costs.set_title(f"Cheapest fleet over {'' if over_load else 'the '}{varied}", fontsize=11)
    _draw_shares(shares, across, points)
    shares.set_xlabel("requests a second (log)" if over_load else f"{varied} per hour")
    for axes in (costs, shares):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    if over_load and len(across) > 1:
        costs.set_xscale("log")
        costs.set_ylim(bottom=0)
    return png_of(figure, dpi=90)


def _scaled(price: float | None, point: Mapping[str, Any], *, over_load: bool) -> float:  # Any: JSON
    if price is None:
        return float("nan")
    return price / (3.6 * point["requests_per_s"]) if over_load else price


def _draw_shares(axes: Axes, across: list[float], points: list[Mapping[str, Any]]) -> None:  # Any: JSON
    tiers: Mapping[str, float] = next((point["tier_shares"] for point in points if point["tier_shares"]), {})
    for index, tier in enumerate(tiers):
        values = [point["tier_shares"][tier] if point["tier_shares"] else float("nan") for point in points]
        axes.plot(across, values, marker=".", color=COLOURS[index % len(COLOURS)], label=tier)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("share served by")
