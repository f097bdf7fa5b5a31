"""What the cheapest fleet costs over the load or the price of a device, and where a device alone is as good. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.errors import InputError
from calibration.simulation.planning.fleet_program import Fleet, FleetProgram, cheapest
from calibration.simulation.planning.make_plan import Market

_POINTS = 13  # of a range
_MAX_POINTS = 200
_NEAR = 1e-6
_STEPS = 50  # of the search for a break-even: a few are enough
_SPEC = re.compile(r"(?:(load)|price:([^=]+))=(.+)")
_RANGE = re.compile(r"([0-9.]+)\.\.([0-9.]+)(?:/([0-9]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """A value that is varied, in ascending order."""

    spec: str
    device: str | None  # whose price it is; None: the load, as multiples of the requests' rate
    values: tuple[float, ...]

    def program(self, market: Market, value: float) -> FleetProgram:
        if self.device is None:
            return market.program.scaled(value)
        of_device = np.array([kind.option.device == self.device for kind in market.kinds])
        return market.program.priced(np.where(of_device, value * market.program.gpus, market.program.prices))


def read_frontier(spec: str, devices: Sequence[str]) -> Frontier:
    """Read `load=1,2,5` or `price:h100=2..8`; a range has 13 values, or `2..8/25` so many.

    Raises:
        InputError: it is neither, names no device, or a value is not above 0.

    """
    match = _SPEC.fullmatch(spec)
    if match is None or (match[2] and match[2] not in devices):
        raise InputError(f"--frontier must be load=1,2,5 or price:DEVICE=2..8, of {', '.join(devices)}, got {spec!r}")
    span = _RANGE.fullmatch(match[3])
    try:
        ends = [float(part) for part in (span.groups()[:2] if span else match[3].split(","))]
    except ValueError:
        ends = []
    count = int(span[3] or _POINTS) if span else len(ends)
    if not ends or not all(0 < value < 1e6 for value in ends) or not 1 <= count <= _MAX_POINTS:
        raise InputError(f"--frontier {spec}: values must be 1 to {_MAX_POINTS} numbers above 0")
    if span and (ends[0] >= ends[1] or count < 2):
        raise InputError(f"--frontier {spec}: a range must rise, and have two values at least")
    grid = np.linspace if match[2] else np.geomspace  # loads by ratio
    values = grid(ends[0], ends[1], count).tolist() if span else sorted(set(ends))
    return Frontier(spec=spec, device=match[2], values=tuple(values))


def follow(market: Market, frontier: Frontier, on_progress: Callable[[int, int], None]) -> dict[str, Any]:  # Any: JSON
    """Return the cheapest fleet at each value, each device's alone, and where one of them is as good."""
    points = []
    for done, value in enumerate(frontier.values):
        points.append(_point(market, frontier, value))
        on_progress(done + 1, len(frontier.values))
    figures = {"spec": frontier.spec, "varied": frontier.device or "load", "points": points}
    device = frontier.device
    if device is None:
        return {**figures, "as_good_at": {name: _as_good(points, name) for name in market.question.offers.devices}}
    return {**figures, "break_even": _break_even(market, frontier, device)}


def _point(market: Market, frontier: Frontier, value: float) -> dict[str, Any]:  # Any: JSON
    program = frontier.program(market, value)
    demand = market.question.demand
    fleet = cheapest(program)
    alone = {name: _alone(program, market, name) for name in market.question.offers.devices}
    per_s = demand.per_s * (value if frontier.device is None else 1.0)
    return {
        "value": value,
        "requests_per_s": per_s,
        "price_per_hour": fleet and fleet.price_per_hour,
        "per_1000_requests": fleet and fleet.price_per_hour / (3.6 * per_s),
        "workers": fleet and named_workers(market, fleet),
        "tier_shares": fleet and tier_shares(market, fleet),
        "alone": {name: other and other.price_per_hour for name, other in alone.items()},
        "gap": fleet and fleet.gap,
    }


def _alone(program: FleetProgram, market: Market, device: str) -> Fleet | None:
    return cheapest(program.only(np.array([kind.option.device == device for kind in market.kinds])))


def named_workers(market: Market, fleet: Fleet) -> dict[str, int]:
    return {kind.name: int(count) for kind, count in zip(market.kinds, fleet.workers, strict=True) if count}


def tier_shares(market: Market, fleet: Fleet) -> dict[str, float]:
    """Return the share of the requests that each tier serves."""
    by_kind = market.share_by_kind(fleet)
    ranks = np.array([kind.option.rank for kind in market.kinds])
    return {tier: float(by_kind[ranks == rank].sum()) for rank, tier in enumerate(market.question.offers.ladder)}


def _as_good(points: Sequence[dict[str, Any]], device: str) -> list[float]:  # Any: JSON
    """Return the loads at which a device alone costs no more than the best mix."""
    return [
        point["value"]
        for point in points
        if point["price_per_hour"] and point["alone"][device] is not None
        if point["alone"][device] <= point["price_per_hour"] * (1 + _NEAR)
    ]


def _break_even(market: Market, frontier: Frontier, device: str) -> dict[str, Any]:  # Any: JSON
    """Return the highest price up to which the device alone is as cheap as the best mix.

    The device alone costs its price times a number of GPUs, a mix no more than so much at any price: where a mix is
    cheaper, the price at which that very mix costs as much is lower, and the search goes on there.
    """
    low, price = frontier.values[0], frontier.values[-1]
    alone = _alone(frontier.program(market, price), market, device)
    if alone is None:
        return {"price": None, "reason": f"only {device} cannot serve it"}
    of_device = np.array([kind.option.device == device for kind in market.kinds])
    gpus = alone.price_per_hour / price
    for _ in range(_STEPS):
        mixed = cheapest(frontier.program(market, price))
        if mixed is None or mixed.price_per_hour >= gpus * price * (1 - _NEAR):
            break
        in_mix = float((market.program.gpus * mixed.workers)[of_device].sum())
        price = (mixed.price_per_hour - in_mix * price) / (gpus - in_mix)
        if price < low:
            return {"price": None, "reason": f"a mix is cheaper at {low:g} already"}
    if price >= frontier.values[-1]:
        return {"price": None, "reason": f"only {device} is as cheap as any mix, up to {price:g}"}
    return {"price": price, "reason": f"up to {price:.4g} only {device} is as cheap as any mix"}
