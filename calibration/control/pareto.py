"""Which tiers are worth their cost: a tier that a cheaper one beats is left out, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.statistics import bootstrap_mean

Numbers = NDArray[np.float64]


@dataclass(slots=True)
class Front:
    """The tiers left out, and what is to be said of those that are kept: by tier, in words."""

    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def pareto_front(added: Mapping[str, Numbers], costs: Mapping[str, float], top: str) -> Front:
    """Return which tiers cost no less than another one, and lose no less in the mean of the same labels.

    A dearer tier that loses less is kept, even where the difference is within noise: then that is said.
    """
    front = Front()
    tiers = sorted(added, key=lambda tier: (costs[tier], float(added[tier].mean())))
    for place, tier in enumerate(tiers):
        if costs[tier] >= costs[top]:
            front.left_out[tier] = f"it costs {costs[tier]:g}, and {top}, which loses nothing, costs {costs[top]:g}"
            continue
        for other in tiers[:place]:
            if other in front.left_out:
                continue
            difference = added[tier] - added[other]
            low, high = bootstrap_mean(difference)
            paired = f"{difference.mean():+.4g} a request, 95 % {low:+.4g} to {high:+.4g}, {len(difference)} labels"
            beats = f"{other} costs {costs[other]:g} of {tier}'s {costs[tier]:g}"
            if difference.mean() >= 0:
                sure = "beyond noise" if low > 0 else "the difference is within noise"
                front.left_out[tier] = f"{beats}, and {tier} loses no less ({paired}: {sure})"
                break
            if high >= 0:
                front.notes[tier] = f"kept, but {beats}, and that {tier} loses less is within noise ({paired})"
    return front
