"""The mean loss of each kind at each tier as PNG. Imports matplotlib: load it where a plot is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure as Canvas

from calibration.artifacts.png import plain, png_of


def kinds_png(tiers: Mapping[str, Any], reference: str) -> bytes:  # Any: JSON of describe_labels
    """Draw a row for each kind, the one that loses most on the first tier at the top."""
    first = next(iter(tiers))
    kinds = [kind for kind, means in tiers[first]["by_kind"].items() if "answer.kl" in means]
    kinds.sort(key=lambda kind: tiers[first]["by_kind"][kind]["answer.kl"]["value"])
    canvas = Canvas(figsize=(7.5, 1.4 + 0.3 * len(kinds)), layout="constrained")
    axes = canvas.subplots()
    for shift, (tier, figures) in enumerate(tiers.items()):
        rows = [(at, figures["by_kind"].get(kind, {}).get("answer.kl")) for at, kind in enumerate(kinds)]
        drawn = [(at + 0.18 * shift, figure) for at, figure in rows if figure]
        values = [figure["value"] for _, figure in drawn]
        below = [figure["value"] - figure["low"] for _, figure in drawn]
        above = [figure["high"] - figure["value"] for _, figure in drawn]
        axes.errorbar(values, [at for at, _ in drawn], xerr=[below, above], fmt="o", capsize=2, label=tier)
    axes.set_yticks(range(len(kinds)), [*map(plain, kinds)])
    axes.set_xlim(left=0)
    axes.set_xlabel(f"mean KL({reference} || tier) along the answers of {reference}, nats a token; 95 % intervals")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return png_of(canvas)
