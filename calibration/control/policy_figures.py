"""What a policy does with labels that nothing was chosen by, beside what is simpler. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitladder.settings.policy_section import PolicySettings
from calibration.statistics import bootstrap_mean, wilson

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]
_TOP_OF_ENTROPY = PolicySettings().entropy_bits


def held_out(
    costs: Mapping[str, float], losses: Numbers, threshold: float, chosen: Places, entropies: Numbers | None
) -> dict[str, Any]:  # Any: JSON
    """Return cost, loss and share over the threshold of each policy, with intervals of 95 %.

    `losses` has a column for each tier; `chosen` the tier of each row. `among_low`: of the requests that a tier below
    the top serves. `random` draws the tuned policy's shares, so it has its cost.
    """
    rows = np.arange(len(losses))
    shares = np.bincount(chosen, minlength=len(costs)) / max(1, len(chosen))
    prices = np.array(list(costs.values()))
    policies = {f"all {tier}": np.full(len(losses), place) for place, tier in enumerate(costs)}
    if entropies is not None:
        policies["article"] = np.where(entropies > _TOP_OF_ENTROPY, len(costs) // 2, 0)
    figures: dict[str, Any] = {
        name: _of(losses[rows, places], prices[places], threshold, places, costs)
        for name, places in {**policies, "tuned": chosen}.items()
    }
    figures["random"] = {
        **_of(losses @ shares, np.full(len(losses), prices @ shares), threshold, chosen, costs),
        "over": float((losses > threshold).mean(axis=0) @ shares),
        "over_interval": None,
    }
    low = losses[rows, chosen][chosen < len(costs) - 1]
    over = int((low > threshold).sum())
    among = (
        {"requests": len(low), "over": over / len(low), "over_interval": wilson(over, len(low))} if len(low) else None
    )
    return {"policies": figures, "among_low": among}


def _of(
    losses: Numbers, costs: Numbers, threshold: float, places: Places, tiers: Mapping[str, float]
) -> dict[str, Any]:  # Any: JSON
    over = int((losses > threshold).sum())
    return {
        "cost": float(costs.mean()),
        "loss": float(losses.mean()),
        "loss_interval": bootstrap_mean(losses),
        "over": over / len(losses),
        "over_interval": wilson(over, len(losses)),
        "shares": {tier: float((places == place).mean()) for place, tier in enumerate(tiers)},
    }
