"""The lists in which jobs wait, and from which of them a worker of a tier claims, in which order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from bitladder.queue_name import Lane, QueueName
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.sections import Settings


def lists_of(model: str, ladder: tuple[str, ...], tier: str, lane: str, reaching: str) -> list[str]:
    """Return the queues of a tier and lane that a worker at tier `reaching` may serve, that without ceiling first."""
    lowest = ladder.index(reaching)
    ceilings = [name for index, name in enumerate(ladder[:-1]) if index >= lowest]
    return [str(QueueName(model, tier, lane, ceiling)) for ceiling in (None, *ceilings)]


def all_lists(model: str, settings: ModelSettings) -> list[str]:
    """Return every queue of a model."""
    ladder = settings.ladder
    return [name for tier in ladder for lane in Lane for name in lists_of(model, ladder, tier, lane, tier)]


def is_served(settings: Settings, queue: str) -> bool:
    """Return whether a queue is one of a configured model, its lists of single tiers included."""
    try:
        name = QueueName.parse(queue)
    except ValueError:
        return False
    model = settings.models.get(name.model)
    if model is None or name.tier not in model.ladder:
        return False
    return set(name.only) <= set(model.ladder) if name.only else queue in all_lists(name.model, model)


def lists_key(model: str) -> str:
    """Return the set of a model's lists of single tiers that are in use."""
    return f"bl:lists:{model}"


def _flag_key(model: str, tier: str, lane: str) -> str:
    """Return the key that exists while a lane overflows: from above its high mark until its low mark is reached."""
    return f"bl:overflow:{model}:{tier}:{lane}"


class ClaimPlan(NamedTuple):
    """What one tier's claims go by: JSON, made once."""

    plan: str
    scheme: str  # for lists of single tiers: most claims find none, and do not read it


def claim_plan(settings: Settings, model: str, tier: str) -> ClaimPlan:
    """Return the plan of claim.lua.

    `own`: the lists of each lane, urgent first, with its low mark and overflow flag. `below`: the lower tiers, nearest
    first, each lane with the lists that count (`all`), those that may escalate as far as this tier (`escalatable`), its
    marks, and its overflow flag.
    """
    ladder, taker = settings.model(model).ladder, settings.model(model).tier(tier)
    plan = json.dumps(
        {
            "own": [
                {
                    "lists": lists_of(model, ladder, tier, lane, tier),
                    "flag": _flag_key(model, tier, lane),
                    # Where age or wait have marks as well, only an empty lane is below all of them.
                    "low": taker.low if taker.high_age_s is None and taker.high_wait_s is None else 0,
                }
                for lane in Lane
            ],
            "share": settings.queue.deadline_share,
            "reserve": taker.reserve,
            "below": [_tier(settings, model, lower, tier) for lower in reversed(ladder[: ladder.index(tier)])],
        }
    )
    return ClaimPlan(plan, _scheme(settings, model, tier))


def _scheme(settings: Settings, model: str, tier: str) -> str:
    """Return the places of tiers and lanes, and in `above` the higher tiers, nearest first, like those below."""
    ladder = settings.model(model).ladder
    return json.dumps(
        {
            "tier": tier,
            "ranks": {name: place for place, name in enumerate(ladder, 1)},
            "lanes": {lane: place for place, lane in enumerate(Lane, 1)},
            "above": [_tier(settings, model, name, name) | {"name": name} for name in ladder[ladder.index(tier) + 1 :]],
        }
    )


def shifted_plan(plan: ClaimPlan, model: str, ladder: Sequence[str], serving: Sequence[str]) -> ClaimPlan:
    """Return the plan of a tier whose traffic is shifted to those tiers above it that are `serving`.

    Left in it are the lists of jobs that none of them may take. The next of them is woken (`pass_to`).
    """
    lowest = min(map(ladder.index, serving))

    def kept(names: Sequence[str]) -> list[str]:
        ceilings = [(name, QueueName.parse(name).ceiling) for name in names]
        return [name for name, ceiling in ceilings if ceiling and ladder.index(ceiling) < lowest]

    tree = json.loads(plan.plan)
    for lane in tree["own"]:
        lane["lists"] = kept(lane["lists"])
    for lane in (lane for lower in tree["below"] for lane in lower["lanes"]):
        lane["escalatable"] = kept(lane["escalatable"])
    scheme = json.loads(plan.scheme) | {"serving": list(serving)}
    return ClaimPlan(json.dumps(tree | {"pass_to": f"bl:wake:{model}:{ladder[lowest]}"}), json.dumps(scheme))


@lru_cache(maxsize=16)
def without_overflow(plan: ClaimPlan) -> ClaimPlan:
    """Return a plan that claims from its own tier alone."""
    return plan._replace(plan=json.dumps(json.loads(plan.plan) | {"below": []}))


def _tier(settings: Settings, model: str, name: str, reaching: str) -> dict[str, Any]:
    ladder, tier = settings.model(model).ladder, settings.model(model).tier(name)
    marks: dict[str, Any] = {"high": tier.high, "low": tier.low}
    if tier.high_age_s is not None:
        marks["age"] = _in_ms(tier.high_age_s, tier.low_age_s)
    if tier.high_wait_s is not None:
        marks["wait"] = _in_ms(tier.high_wait_s, tier.low_wait_s)
    return {
        "live": f"bl:live:{model}:{name}",
        "health": f"bl:health:{model}:{name}",
        "lanes": [
            {
                "all": lists_of(model, ladder, name, lane, name),
                "escalatable": lists_of(model, ladder, name, lane, reaching),
                "flag": _flag_key(model, name, lane),
                "may_overflow": lane in settings.lanes.overflow,
                **({"eager": True} if is_eager(settings, model, reaching, lane) else {}),
                **marks,
            }
            for lane in Lane
        ],
    }


def is_eager(settings: Settings, model: str, tier: str, lane: str) -> bool:
    """Return whether a tier takes jobs of a lower one's lane at once, while nothing waits for itself."""
    return settings.model(model).tier(tier).eager or lane in settings.lanes.eager


def _in_ms(high_s: float, low_s: float | None) -> dict[str, float]:
    return {"high": high_s * 1000, "low": (high_s / 2 if low_s is None else low_s) * 1000}
