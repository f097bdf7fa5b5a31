"""The option --cost of the control loop's commands: what a request costs at each tier."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.errors import InputError

_MAX_COST = 1e9


def read_costs(options: Sequence[str]) -> dict[str, float]:
    """Return the cost of each tier.

    Raises:
        InputError: an option is no TIER=COST, a tier is there twice, there are fewer than two, or no dearest one.

    """
    costs: dict[str, float] = {}
    for option in options:
        tier, _, number = option.partition("=")
        if tier in costs:
            raise InputError(f"--cost {tier} is there twice: {costs[tier]:g}, and {option!r}")
        try:
            costs[tier] = float(number)
        except ValueError:
            raise InputError(f"--cost must be TIER=COST, as int4=0.3, got {option!r}") from None
        if not tier or not 0 <= costs[tier] <= _MAX_COST:
            raise InputError(f"--cost must be TIER=COST with a cost from 0 to 1e9, got {option!r}")
    if len(costs) < 2:
        raise InputError(f"--cost must name two tiers or more, got {', '.join(costs) or 'none'}")
    highest = max(costs.values())
    if len(dearest := [tier for tier in costs if costs[tier] == highest]) > 1:
        raise InputError(f"--cost must make one tier the dearest, the top: {' and '.join(dearest)} cost {highest:g}")
    return costs
