"""The cheapest fleet for requests, targets and a quality promise, and how much it saves, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.simulation.outcome import NO_TARGETS, Targets
from calibration.simulation.planning.fleet_program import Fleet, FleetProgram, cheapest, fractional_price
from calibration.simulation.planning.offers_file import Offers, Option
from calibration.simulation.planning.size_buckets import Bucket, Demand
from calibration.simulation.planning.why_infeasible import stock_fault, unserved_fault
from calibration.simulation.planning.worker_kinds import Speeds, WorkerKind, kinds_of
from calibration.statistics import Floats

_HARD = 0.5  # of the slots that the easiest bucket allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """What a fleet must keep."""

    targets: Targets
    shares: Mapping[str, float]  # floors by tier: what the quality promise lets go low; empty: everything may
    attainment: float = 0.99  # share of the requests that must be within the targets
    is_blind: bool = False  # requests are not divided by size


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a fleet is wanted for, and what there is to rent."""

    offers: Offers
    options: Sequence[Option]
    demand: Demand
    aims: Aims

    @property
    def may_be_below(self) -> Floats:
        """The share of the requests that each tier and those below it may serve, by rank."""
        if not self.aims.shares:
            return np.ones(len(self.offers.ladder))
        floors = np.array([self.aims.shares.get(tier, 0.0) for tier in self.offers.ladder])
        return np.asarray(np.cumsum(floors) / floors.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A question as a program."""

    question: Question
    kinds: Sequence[WorkerKind]
    program: FleetProgram
    late: Sequence[Bucket]  # so few that they may miss the targets

    def share_by_kind(self, fleet: Fleet) -> Floats:
        """Return the share of all requests that each kind serves."""
        buckets = self.question.demand.buckets
        weights = np.array([bucket.share for bucket in buckets] if len(fleet.shares) == len(buckets) else [1.0])
        return np.asarray(weights @ fleet.shares)


def market_of(question: Question) -> Market:
    """Return the program of a question.

    Raises:
        InputError: no fleet can serve it, however large; the message says which constraint is why.

    """
    if unknown := set(question.aims.shares) - set(question.offers.ladder):
        ladder = ", ".join(question.offers.ladder)
        raise InputError(f"--shares: tier must be one of {ladder}, got {min(unknown)!r}")
    speeds = [Speeds(option, question.offers.model) for option in question.options]
    buckets = question.demand.buckets
    # The tier that the promise lets nobody go below for some of the requests: only it and those above count.
    needed = next(rank for rank, share in enumerate(question.may_be_below) if share >= 1 - 1e-9)
    late = _late(question, [speed for speed in speeds if speed.option.rank >= needed])
    targets = [NO_TARGETS if is_late else question.aims.targets for is_late in late]
    kinds = [kind for speed in speeds for kind in kinds_of(speed, buckets, targets)]
    high = [kind for kind in kinds if kind.option.rank >= needed]
    unserved = [bucket for index, bucket in enumerate(buckets) if not any(kind.keeps[index] for kind in high)]
    if unserved:
        raise InputError(unserved_fault(unserved, speeds, needed, question.offers, question.aims.targets))
    return Market(
        question=question,
        kinds=kinds,
        program=_program(question, kinds),
        late=[bucket for bucket, is_late in zip(buckets, late, strict=True) if is_late],
    )


def _late(question: Question, speeds: Sequence[Speeds]) -> list[bool]:
    """Return which buckets may miss the targets.

    The attainment allows a few requests to: first those that no device can serve in time, then, up to half of what is
    allowed (the rest is for waiting), those for which a worker would have to run nearly empty.
    """
    allowed, spent = 1 - question.aims.attainment + 1e-12, 0.0
    buckets = question.demand.buckets
    eases = [
        max(
            (
                speed.slots_within(bucket, question.aims.targets) / speed.highest
                for speed in speeds
                if speed.fits(bucket)
            ),
            default=0.0,
        )
        for bucket in buckets
    ]
    late = [False] * len(buckets)
    for index in sorted(range(len(buckets)), key=lambda index: eases[index]):
        limit = allowed if eases[index] == 0 else allowed / 2
        if eases[index] < _HARD * max(eases) and spent + buckets[index].share <= limit:
            late[index] = True
            spent += buckets[index].share
    return late


def _program(question: Question, kinds: Sequence[WorkerKind]) -> FleetProgram:
    rates = question.demand.per_s * np.array([bucket.share for bucket in question.demand.buckets])
    tokens = np.array([bucket.tokens for bucket in question.demand.buckets])
    slot_load = np.array([kind.seconds for kind in kinds]).T * rates[:, None]
    names = list(question.offers.devices)
    counts = [question.offers.devices[name].count for name in names]
    program = FleetProgram(
        slot_load=slot_load,
        kv_load=slot_load * tokens[:, None],
        allowed=np.array([kind.keeps for kind in kinds]).T,
        slots=np.array([float(kind.slots) for kind in kinds]),
        kv_tokens=np.array([kind.kv_tokens for kind in kinds]),
        prices=np.array([kind.option.price_per_hour for kind in kinds]),
        gpus=np.array([float(kind.option.part.gpus) for kind in kinds]),
        ranks=np.array([kind.option.rank for kind in kinds]),
        devices=np.array([names.index(kind.option.device) for kind in kinds]),
        stock=np.array([np.inf if count is None else float(count) for count in counts]),
        may_be_below=question.may_be_below,
    )
    return program.blind() if question.aims.is_blind else program


def make_plan(market: Market) -> Fleet:
    """Return the cheapest fleet.

    Raises:
        InputError: there are too few GPUs, or, where requests are not divided by size, no worker can take all sizes.

    """
    if (fleet := cheapest(market.program)) is not None:
        return fleet
    raise InputError(stock_fault(market.program, market.kinds, list(market.question.offers.devices)))


def alternatives(market: Market) -> dict[str, Fleet | str]:
    """Return the cheapest fleet of each device alone, and of each tier alone, or why it cannot be."""
    kinds = market.kinds
    of_device = {
        name: np.array([kind.option.device == name for kind in kinds]) for name in market.question.offers.devices
    }
    of_tier = {tier: market.program.ranks == rank for rank, tier in enumerate(market.question.offers.ladder)}
    return {f"only {name}": _alone(market.program, chosen) for name, chosen in (of_device | of_tier).items()}


def _alone(program: FleetProgram, chosen: NDArray[np.bool_]) -> Fleet | str:
    """Return the cheapest fleet of some kinds of workers, or why there is none."""
    alone = program.only(chosen)
    if (fleet := cheapest(alone)) is not None:
        return fleet
    if not chosen.any():
        return "nobody offers it"
    if program.may_be_below[program.ranks[chosen].max()] < 1 - 1e-9:
        return "the quality promise needs higher tiers too"
    if cheapest(replace(alone, stock=np.full(len(program.stock), np.inf))) is not None:
        return "there are too few of it"
    return "it does not keep the targets, or its memory is too small, for every size"


def best_device(market: Market, others: Mapping[str, Fleet | str]) -> str | None:
    """Return the device whose fleet is the cheapest of one device alone."""
    prices = {
        name: fleet.price_per_hour
        for name in market.question.offers.devices
        if not isinstance(fleet := others[f"only {name}"], str)
    }
    return min(prices, key=lambda name: prices[name]) if prices else None


def saving(market: Market, fleet: Fleet, others: Mapping[str, Fleet | str]) -> dict[str, Any] | None:  # Any: JSON
    """Return what the plan saves against the best single device, by cheaper work and by smaller units.

    Could parts of workers be rented, only cheaper work would count: some sizes or tiers cost less elsewhere. The rest
    of the saving is that smaller units are wasted less.
    """
    device = best_device(market, others)
    alone = others[f"only {device}"] if device else None
    if device is None or alone is None or isinstance(alone, str):
        return None
    is_device = np.array([kind.option.device == device for kind in market.kinds])
    of_parts = fractional_price(market.program.only(is_device))
    mixed = fractional_price(market.program)
    assert of_parts is not None and mixed is not None  # noqa: S101, PT018  (there are fleets of whole workers)
    total = alone.price_per_hour - fleet.price_per_hour
    cheaper = min(total, of_parts - mixed)
    return {
        "against": f"only {device}",
        "price_per_hour": alone.price_per_hour,
        "saved_per_hour": total,
        "share": total / alone.price_per_hour,
        "by_cheaper_work": max(0.0, cheaper) / alone.price_per_hour,
        "by_smaller_units": (total - max(0.0, cheaper)) / alone.price_per_hour,
    }
