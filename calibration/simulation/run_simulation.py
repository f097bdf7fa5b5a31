"""Simulate requests on a fleet: floors by the policy, claims by the rule that serves, speeds by the curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.decision import Score
from bitladder.queue_name import Lane
from bitladder.routing.constraints import Constraints
from bitladder.routing.envelope import Envelope
from bitladder.routing.policies import Policies
from bitladder.routing.policies.interface import Requester
from bitladder.settings.sections import Settings
from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals
from calibration.simulation.claim_rule import LANES, WaitingJobs
from calibration.simulation.event_loop import EventLoop, Speed, Work
from calibration.simulation.fleet_file import Fleet, check_fleet, memory_faults, workers_of
from calibration.simulation.outcome import NO_TARGETS, Targets, TierFacts, figures_of
from calibration.simulation.service_curves import Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated."""

    settings: Settings
    model: str
    fleet: Fleet
    curves: Mapping[str, Curve]
    shares: Mapping[str, float]  # of the requests, by floor; empty: the policy decides by their features
    targets: Targets = NO_TARGETS
    seed: int = 0


def simulate(
    scenario: Scenario, arrivals: Arrivals, on_progress: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Return the figures of a scenario; equal arguments, equal figures.

    Raises:
        InputError: the fleet, its curves and the requests do not fit each other, or the model not the fleet.

    """
    settings = scenario.settings.models[scenario.model]
    check_fleet(scenario.fleet, settings, scenario.curves)
    tokens = float((arrivals.input_tokens + arrivals.output_tokens).mean())
    if faults := memory_faults(scenario.fleet, settings, tokens):
        raise InputError("\n".join(faults))
    work = _work(scenario, arrivals)
    workers = workers_of(scenario.fleet, settings.ladder)
    if stranded := [settings.ladder[rank] for rank in sorted(set(work.rank)) if not any(workers[rank:])]:
        raise InputError(f"nobody would ever serve floor {stranded[0]}: neither it nor a tier above has a worker")
    waiting = WaitingJobs(scenario.settings, scenario.model, workers, work.at_s)
    speeds = list(zip(workers, _speeds(scenario), strict=True))
    loop = EventLoop(work, waiting, speeds, _wakes(scenario), scenario.settings.worker.block_s)
    loop.run(on_progress)
    return {"seed": scenario.seed, **figures_of(work, _tier_facts(scenario), scenario.targets)}


def _work(scenario: Scenario, arrivals: Arrivals) -> Work:
    places = {lane: place for place, lane in enumerate(LANES)}
    return Work(
        at_s=arrivals.at_s.tolist(),
        rank=_floors(scenario, arrivals),
        lane=[places[Lane(lane)] for lane in arrivals.lanes] or [places[Lane.NORMAL]] * len(arrivals),
        input_tokens=arrivals.input_tokens.tolist(),
        output_tokens=arrivals.output_tokens.tolist(),
    )


def _floors(scenario: Scenario, arrivals: Arrivals) -> list[int]:
    """Return each request's floor: its own, else by shares, else by the policy on its features."""
    ladder = scenario.settings.models[scenario.model].ladder
    ranks = {name: rank for rank, name in enumerate(ladder)}
    if unknown := ({*arrivals.floors, *scenario.shares} - {*ladder, ""}):
        raise InputError(f"a floor must be one of {', '.join(ladder)}, got {min(unknown)!r}")
    drawn: Sequence[int] = ()
    if scenario.shares:
        # Apart from what made the requests: other shares, the same requests.
        random = np.random.default_rng((scenario.seed, 1))
        total = sum(scenario.shares.values())
        names, weights = zip(*scenario.shares.items(), strict=True)
        chosen = random.choice([ranks[name] for name in names], len(arrivals), p=[weight / total for weight in weights])
        drawn = chosen.tolist()
    decide = _policy(scenario)
    return [
        ranks[floor] if floor else (drawn[index] if drawn else ranks[decide(arrivals, index)])
        for index, floor in enumerate(arrivals.floors or [""] * len(arrivals))
    ]


def _policy(scenario: Scenario) -> Callable[[Arrivals, int], str]:
    ladder = scenario.settings.models[scenario.model].ladder
    policies = Policies(scenario.settings)
    envelope = Envelope()
    constraints = Constraints(ladder=ladder, lowest=0, highest=len(ladder) - 1, envelope=envelope)

    def decide(arrivals: Arrivals, index: int) -> str:
        policy = policies.select(scenario.model, "", lambda: Requester(key="", request=index.to_bytes(8)))
        score = arrivals.scores[index] if arrivals.scores else None
        missing = [name for name in policy.features if score is None or getattr(score, name) is None]
        if missing:
            raise InputError(
                f"policy {policy.name} reads {', '.join(missing)}, which request {index + 1} lacks: state shares by "
                "floor, or take a recorded trace with a score in each line"
            )
        assert score is not None or not policy.features  # noqa: S101  (nothing is missing)
        return policy.decide(score or Score(), constraints).floor

    return decide


def _speeds(scenario: Scenario) -> list[Speed]:
    speeds = []
    for tier in scenario.settings.models[scenario.model].tiers:
        curve = scenario.curves[scenario.fleet.tiers[tier.name].curve]
        speeds.append(
            Speed(
                slots=tier.slots,
                job_rates=curve.job_rates(tier.slots),
                first_token_s=curve.first_token_s(tier.slots),
                input_tokens=curve.input_tokens,
            )
        )
    return speeds


def _wakes(scenario: Scenario) -> list[list[float]]:
    """Return by rank and lane above which depth the workers of higher tiers are woken, as a submission wakes them."""
    overflowing = scenario.settings.lanes.overflow
    tiers = scenario.settings.models[scenario.model].tiers
    return [[float(tier.high) if lane in overflowing else math.inf for lane in LANES] for tier in tiers]


def _tier_facts(scenario: Scenario) -> list[TierFacts]:
    facts = []
    for tier in scenario.settings.models[scenario.model].tiers:
        part = scenario.fleet.tiers[tier.name]
        curve = scenario.curves[part.curve]
        origin = {name: getattr(curve, name) for name in ("name", "source", "device", "version", "mode")}
        facts.append(TierFacts(name=tier.name, workers=part.workers, price_per_hour=tier.price_per_hour, curve=origin))
    return facts
