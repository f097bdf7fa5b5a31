"""Run a planned fleet on the same requests in the simulation, and rent more where it misses the targets. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitladder.settings.sections import Settings
from calibration.simulation.arrivals import Arrivals
from calibration.simulation.fleet_file import Fleet as SimulatedFleet
from calibration.simulation.fleet_file import FleetTier
from calibration.simulation.planning.fleet_program import Fleet, FleetProgram, balanced, cheapest
from calibration.simulation.planning.make_plan import Market
from calibration.simulation.planning.worker_kinds import WorkerKind
from calibration.simulation.run_simulation import Scenario, simulate
from calibration.statistics import Floats

Kinds = NDArray[np.intp]
MAX_CHANGES = 20
_HEADROOM = 1.1
_GROWTH = 0.05  # of a kind's workers that are added at once, where it has many
MODEL = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A fleet after its simulation."""

    fleet: Fleet
    changes: Sequence[str]  # of what the program had planned
    attainment: float  # share of the requests that kept every target
    figures: dict[str, Any]  # Any: JSON

    def keeps(self, goal: float) -> bool:
        return self.attainment >= goal


def verify_plan(
    market: Market,
    fleet: Fleet,
    arrivals: Arrivals,
    seed: int,
    on_round: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Simulate a fleet; while it falls short, take the cheaper of two larger ones.

    One has the cheapest worker more that can help the kind that misses most; one is the cheapest for more load, by 10 %
    in each round.
    """
    goal = market.question.aims.attainment
    changes: list[str] = []
    while True:
        result = _simulated(market, fleet, arrivals, seed, on_progress=on_progress)
        attainment = result["goodput"]["share"]
        on_round(f"simulated {_words(market.kinds, fleet)}: {attainment:.2%} within the targets")
        larger: list[tuple[Fleet, str]] = []
        if attainment < goal and len(changes) < MAX_CHANGES:
            larger = [*_grown(market, fleet, len(changes) + 1), *_more(market, fleet, arrivals, seed)]
        if not larger:
            return Verified(fleet=fleet, changes=changes, attainment=attainment, figures=result)
        fleet, change = min(larger, key=lambda pair: pair[0].price_per_hour)
        changes.append(change)


def _words(kinds: Sequence[WorkerKind], fleet: Fleet) -> str:
    return ", ".join(f"{count} x {kind.name}" for kind, count in zip(kinds, fleet.workers, strict=True) if count)


def _simulated(
    market: Market,
    fleet: Fleet,
    arrivals: Arrivals,
    seed: int,
    *,
    only: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:  # Any: JSON
    """Return the figures of a fleet, or of one kind's workers alone with the requests that are meant for them."""
    rented = [int(index) for index in np.flatnonzero(fleet.workers)]
    chosen = _chosen(market, fleet, len(arrivals), seed)
    if only is not None:
        rented = [only]
        here = chosen == only
        arrivals = _selected(arrivals, here)
        chosen = chosen[here]
    kinds = [market.kinds[index] for index in rented]
    floors = {index: kind.name for index, kind in zip(rented, kinds, strict=True)}
    scenario = Scenario(
        settings=Settings.model_validate({"models": {MODEL: {"tiers": tiers_of(market, fleet, rented)}}}),
        model=MODEL,
        # Memory was checked by the requests of each kind: here it would be by the average of all.
        fleet=SimulatedFleet(
            {
                kind.name: FleetTier(int(fleet.workers[index]), kind.name, kind.option.part.bits)
                for index, kind in zip(rented, kinds, strict=True)
            }
        ),
        curves={kind.name: kind.option.curve for kind in kinds},
        shares={},
        targets=market.question.aims.targets,
        seed=seed,
    )
    meant = Arrivals(
        at_s=arrivals.at_s,
        input_tokens=arrivals.input_tokens,
        output_tokens=arrivals.output_tokens,
        lanes=arrivals.lanes,
        floors=[floors[int(index)] for index in chosen],
    )
    return simulate(scenario, meant, on_progress)


def _chosen(market: Market, fleet: Fleet, count: int, seed: int) -> Kinds:
    """Return each request's kind of worker: drawn by the shares of its bucket."""
    buckets = market.question.demand.of_request if len(fleet.shares) > 1 else np.zeros(count, dtype=np.intp)
    steps = np.cumsum(fleet.shares, axis=1)[buckets]
    drawn = np.random.default_rng((seed, 2)).random(count)
    return np.asarray(np.minimum((drawn[:, None] >= steps).sum(axis=1), _last(fleet.shares)[buckets]))


def _last(shares: Floats) -> Kinds:
    """Return the last kind that has a share of each bucket: where rounding leaves a draw above all steps."""
    return np.asarray(shares.shape[1] - 1 - np.argmax(shares[:, ::-1] > 0, axis=1))


def _selected(arrivals: Arrivals, here: NDArray[np.bool_]) -> Arrivals:
    lanes = [lane for lane, is_here in zip(arrivals.lanes, here, strict=True) if is_here] if arrivals.lanes else ()
    return Arrivals(
        at_s=arrivals.at_s[here],
        input_tokens=arrivals.input_tokens[here],
        output_tokens=arrivals.output_tokens[here],
        lanes=lanes,
    )


def slots_of(market: Market, fleet: Fleet, index: int) -> int:
    """Return the slots of a kind's workers: no more than hold the average request of those that it serves."""
    kind, program = market.kinds[index], market.program
    in_use = float(program.slot_load[:, index] @ fleet.shares[:, index])
    tokens = float(program.kv_load[:, index] @ fleet.shares[:, index])
    by_memory = int(kind.kv_tokens * in_use / tokens) if tokens else kind.slots
    return max(1, min(kind.slots, by_memory))


def tiers_of(market: Market, fleet: Fleet, rented: Sequence[int]) -> list[dict[str, Any]]:  # Any: of settings
    """Return the settings of a tier for each kind of worker that is rented."""
    return [
        {
            "name": market.kinds[index].name,
            "price_per_hour": market.kinds[index].option.price_per_hour,
            "slots": slots_of(market, fleet, index),
        }
        for index in rented
    ]


def _grown(market: Market, fleet: Fleet, rounds: int) -> list[tuple[Fleet, str]]:
    """Return the cheapest fleet for more load, where it is another one that costs no less."""
    load = _HEADROOM**rounds
    grown = cheapest(market.program.scaled(load))
    if grown is None or (grown.workers == fleet.workers).all() or grown.price_per_hour < fleet.price_per_hour:
        return []
    shared = balanced(market.program, grown.workers)
    return [(shared, f"planned for {load:.2f} times the load")] if shared is not None else []


def _more(market: Market, fleet: Fleet, arrivals: Arrivals, seed: int) -> list[tuple[Fleet, str]]:
    """Return the fleet with the cheapest workers more that can take requests of the kind that misses most, if any."""
    chosen = _chosen(market, fleet, len(arrivals), seed)
    misses = {
        int(index): count * (1 - _simulated(market, fleet, arrivals, seed, only=int(index))["goodput"]["share"])
        for index, count in zip(*np.unique(chosen, return_counts=True), strict=True)
    }
    for worst in sorted(misses, key=lambda index: -misses[index]):
        for index in _helpers(market.program, fleet, worst):
            count = max(1, math.ceil(_GROWTH * int(fleet.workers[worst])))
            workers = fleet.workers.copy()
            workers[index] += count
            larger = balanced(market.program, workers)
            if larger is not None and _is_in_stock(market.program, workers):
                return [(larger, f"{count} x {market.kinds[index].name} more")]
    return []


def _helpers(program: FleetProgram, fleet: Fleet, worst: int) -> list[int]:
    """Return the kinds that can serve everything that this one serves, at its tier or above: the cheapest first."""
    serves = fleet.shares[:, worst] > 0
    able = [
        index
        for index in range(len(program.prices))
        if program.ranks[index] >= program.ranks[worst] and program.allowed[serves, index].all()
    ]
    return sorted(able, key=lambda index: (program.prices[index], index != worst))


def _is_in_stock(program: FleetProgram, workers: Kinds) -> bool:
    used = np.bincount(program.devices, weights=program.gpus * workers, minlength=len(program.stock))
    return bool((used <= program.stock).all())
