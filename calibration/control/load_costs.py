"""What a request costs at each tier when a load comes to its workers, by service curves and prices. Pure.

Each worker is a queue whose speed goes by the jobs in it (a birth-death chain: arrivals by chance, as many jobs at once
as the tier has slots, the others wait). A request pays its share of the time in which the worker is busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitladder.routing.cost import price_of
from bitladder.settings.models_section import ModelSettings, TierSettings
from calibration.errors import InputError
from calibration.simulation.fleet_file import Fleet, check_fleet
from calibration.simulation.service_curves import Curve


@dataclass(frozen=True, slots=True)
class TierLoad:
    """One tier under the load."""

    cost: float  # of a request
    concurrency: float  # jobs in a worker's engine, on average while it has any
    busy: float  # share of the time
    most_per_s: float  # what all its workers can hold


def costs_at(
    load_per_s: float, fleet: Fleet, curves: Mapping[str, Curve], model: ModelSettings, tokens: tuple[float, float]
) -> dict[str, TierLoad]:
    """Return each tier under this load of requests, of so many tokens in and out, were it to serve all of them.

    Raises:
        InputError: a tier has no price or no workers, or cannot hold the load.

    """
    check_fleet(fleet, model, curves)
    return {tier.name: _of_tier(tier, fleet, curves, load_per_s, tokens) for tier in model.tiers}


def _of_tier(
    tier: TierSettings, fleet: Fleet, curves: Mapping[str, Curve], load_per_s: float, tokens: tuple[float, float]
) -> TierLoad:
    part = fleet.tiers[tier.name]
    if not tier.price_per_hour or not part.workers:
        lacking = "price_per_hour in bitladder.toml" if part.workers else "worker in the fleet"
        raise InputError(f"tier {tier.name} has no {lacking}: what a request costs there cannot be said")
    times_s = _seconds(curves[part.curve], tier.slots, tokens)
    rates = np.arange(1, tier.slots + 1) / times_s  # jobs that end in a second, by the jobs at once
    load = load_per_s / part.workers
    if load >= rates[-1]:
        raise InputError(
            f"--load {load_per_s:g}: tier {tier.name} holds {part.workers * rates[-1]:.3g} requests a second at most, "
            f"with {part.workers} workers of {tier.slots} slots each: add workers to the fleet"
        )
    logarithms = np.concatenate(([0.0], np.cumsum(np.log(load / rates))))
    weights = np.exp(logarithms - logarithms.max())  # of thousands of slots they are larger than a number can be
    weights[-1] /= 1 - load / rates[-1]  # and those with all slots taken and others that wait
    chances = weights / weights.sum()
    busy = float(1 - chances[0])
    return TierLoad(
        cost=price_of(busy / load, tier.price_per_hour),
        concurrency=float(np.arange(tier.slots + 1) @ chances) / busy,
        busy=busy,
        most_per_s=float(part.workers * rates[-1]),
    )


def _seconds(curve: Curve, slots: int, tokens: tuple[float, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return how long a job takes, by the jobs at once, from 1 on."""
    first, rates = np.array(curve.first_token_s(slots)[1:]), np.array(curve.job_rates(slots)[1:])
    if curve.input_tokens is not None:
        first = first * tokens[0] / curve.input_tokens
    return first + max(0.0, tokens[1] - 1) / rates
