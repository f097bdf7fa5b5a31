"""Simulate requests on a fleet: floors by the policy, claims by the rule that serves, speeds by the curves."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitladder.queue_name import DEFAULT_TENANT, Lane, QueueName
from bitladder.settings.sections import Settings
from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals
from calibration.simulation.claim_rule import LANES, WaitingJobs
from calibration.simulation.event_loop import EventLoop
from calibration.simulation.fleet_file import Fleet, check_fleet, memory_faults, workers_of
from calibration.simulation.intake_gate import Admission
from calibration.simulation.outcome import NO_TARGETS, Targets, TierFacts, figures_of
from calibration.simulation.placing import Placing
from calibration.simulation.scripted.key_budgets import payers_of
from calibration.simulation.scripted.scripted_queue import ScriptedQueue
from calibration.simulation.service_curves import Curve
from calibration.simulation.simulated_work import Speed, Work

_MAX_S = 1e11  # the scripts count milliseconds, up to a quadrillion


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
    scenario: Scenario,
    arrivals: Arrivals,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    on_end: Callable[[Work], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the figures of a scenario; equal arguments, equal figures. `on_end` gets what became of each request.

    Raises:
        InputError: the fleet, its curves and the requests do not fit each other, or the model not the fleet.

    """
    settings = scenario.settings.models[scenario.model]
    if not len(arrivals):
        raise InputError("there are no requests")
    if (last_s := float(arrivals.at_s[-1])) > _MAX_S:
        raise InputError(f"the last request would come after {last_s:.3g} s; {_MAX_S:.0e} s are simulated at most")
    check_fleet(scenario.fleet, settings, scenario.curves)
    tokens = float((arrivals.input_tokens + arrivals.output_tokens).mean())
    if faults := memory_faults(scenario.fleet, settings, tokens):
        raise InputError("\n".join(faults))
    by_scripts = _needs_scripts(scenario, arrivals)
    work = _ended(scenario, arrivals, on_progress, by_scripts=by_scripts)
    longest_s = np.nan_to_num(np.asarray(work.begun_s) - np.asarray(work.at_s)).max()
    if not by_scripts and longest_s >= scenario.settings.queue.max_wait_s:  # by the quick rule no job expires
        work = _ended(scenario, arrivals, on_progress, by_scripts=True)
    on_end(work)
    return {"seed": scenario.seed, **figures_of(work, _tier_facts(scenario), scenario.targets, arrivals.tenants)}


def _ended(scenario: Scenario, arrivals: Arrivals, on_progress: Callable[[int], None], *, by_scripts: bool) -> Work:
    """Return the jobs with what became of each."""
    ladder = scenario.settings.models[scenario.model].ladder
    work, queues = _work(scenario, arrivals, by_scripts=by_scripts)
    workers = workers_of(scenario.fleet, ladder)
    _check_reach(ladder, workers, work, queues)
    waiting: WaitingJobs | ScriptedQueue
    if queues:
        waiting = ScriptedQueue(scenario.settings, scenario.model, workers, work, queues)
    else:
        waiting = WaitingJobs(scenario.settings, scenario.model, workers, work)
    gate = Admission(scenario.settings, scenario.model, workers, work, waiting) if work.deadline_s else None
    loop = EventLoop(work, waiting, list(zip(workers, _speeds(scenario), strict=True)), _poll_s(scenario), gate)
    loop.run(on_progress)
    return work


def _poll_s(scenario: Scenario) -> float:
    return scenario.settings.worker.block_s


def _work(scenario: Scenario, arrivals: Arrivals, *, by_scripts: bool) -> tuple[Work, list[tuple[str, str]]]:
    """Return the jobs, and of each its queue and tenant where they are for the scripts; else none."""
    placing = Placing(settings=scenario.settings, model=scenario.model, shares=scenario.shares, seed=scenario.seed)
    lanes = [Lane(lane) for lane in arrivals.lanes] or [Lane.NORMAL] * len(arrivals)
    ranks = placing.ranks(arrivals)
    places = {lane: place for place, lane in enumerate(LANES)}
    work = Work(
        at_s=array("d", arrivals.at_s),
        rank=array("b", ranks),
        lane=array("b", map(places.__getitem__, lanes)),
        input_tokens=array("d", arrivals.input_tokens),
        output_tokens=array("d", arrivals.output_tokens),
        deadline_s=arrivals.deadlines_s,
    )
    return work, placing.queues(arrivals, ranks, lanes) if by_scripts else []


def _needs_scripts(scenario: Scenario, arrivals: Arrivals) -> bool:
    """Return whether something is asked for that the quick rule (claim_rule.py) does not know."""
    model = scenario.settings.models[scenario.model]
    has_marks = any(tier.high_wait_s is not None for tier in model.tiers)
    pays = DEFAULT_TENANT in payers_of(scenario.settings)
    return not arrivals.are_plain or has_marks or pays or model.max_overflow_cost_per_hour is not None


def _check_reach(ladder: Sequence[str], workers: Sequence[int], work: Work, queues: Sequence[tuple[str, str]]) -> None:
    """Refuse requests that no worker of the fleet may serve."""
    for rank in sorted(set(work.rank)) if not queues else ():
        if not any(workers[rank:]):
            raise InputError(f"nobody would ever serve floor {ladder[rank]}: neither it nor a tier above has a worker")
    for name in sorted({queue for queue, _ in queues}):
        serving = QueueName.parse(name).serving(ladder)
        if not any(workers[ladder.index(tier)] for tier in serving):
            raise InputError(f"nobody would ever serve {name}: of {', '.join(serving)} none has a worker")


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
                has_reserve=tier.reserve > 0,
            )
        )
    return speeds


def _tier_facts(scenario: Scenario) -> list[TierFacts]:
    facts = []
    for tier in scenario.settings.models[scenario.model].tiers:
        part = scenario.fleet.tiers[tier.name]
        curve = scenario.curves[part.curve]
        origin = {name: getattr(curve, name) for name in ("name", "source", "device", "version", "mode")}
        facts.append(TierFacts(name=tier.name, workers=part.workers, price_per_hour=tier.price_per_hour, curve=origin))
    return facts
