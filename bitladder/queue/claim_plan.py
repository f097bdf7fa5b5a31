"""The lists in which jobs wait, and from which of them a worker of a tier claims, in which order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from bitladder.contract import Lane, QueueName
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


def _flag_key(model: str, tier: str, lane: str) -> str:
    """Return the key that exists while a lane overflows: from above its high mark until its low mark is reached."""
    return f"bl:overflow:{model}:{tier}:{lane}"


def claim_plan(settings: Settings, model: str, tier: str) -> str:
    """Return the plan of claim.lua, as JSON.

    `own`: the lists of each lane, urgent first, with its low mark and overflow flag. `below`: the lower tiers, nearest
    first, each lane with the lists that count (`all`), those that may escalate as far as this tier (`escalatable`), its
    marks, and its overflow flag.
    """
    ladder = settings.model(model).ladder
    below = reversed(ladder[: ladder.index(tier)])
    return json.dumps(
        {
            "own": [
                {
                    "lists": lists_of(model, ladder, tier, lane, tier),
                    "flag": _flag_key(model, tier, lane),
                    "low": settings.model(model).tier(tier).low,
                }
                for lane in Lane
            ],
            "share": settings.queue.deadline_share,
            "below": [_lower(settings, model, lower, tier) for lower in below],
        }
    )


def shifted_plan(plan: str, model: str, ladder: Sequence[str], serving: Sequence[str]) -> str:
    """Return the plan of a tier whose traffic is shifted to those tiers above it that are `serving`.

    Left in it are the lists of jobs that none of them may take. The next of them is woken (`pass_to`).
    """
    lowest = min(map(ladder.index, serving))

    def kept(names: Sequence[str]) -> list[str]:
        ceilings = [(name, QueueName.parse(name).ceiling) for name in names]
        return [name for name, ceiling in ceilings if ceiling and ladder.index(ceiling) < lowest]

    tree = json.loads(plan)
    for lane in tree["own"]:
        lane["lists"] = kept(lane["lists"])
    for lane in (lane for lower in tree["below"] for lane in lower["lanes"]):
        lane["escalatable"] = kept(lane["escalatable"])
    return json.dumps(tree | {"pass_to": f"bl:wake:{model}:{ladder[lowest]}"})


@lru_cache(maxsize=16)
def without_overflow(plan: str) -> str:
    """Return a plan that claims from its own tier alone."""
    return json.dumps(json.loads(plan) | {"below": []})


def _lower(settings: Settings, model: str, lower: str, tier: str) -> dict[str, object]:
    ladder = settings.model(model).ladder
    marks = settings.model(model).tier(lower)
    return {
        "live": f"bl:live:{model}:{lower}",
        "health": f"bl:health:{model}:{lower}",
        "lanes": [
            {
                "all": lists_of(model, ladder, lower, lane, lower),
                "escalatable": lists_of(model, ladder, lower, lane, tier),
                "flag": _flag_key(model, lower, lane),
                "high": marks.high,
                "low": marks.low,
                "may_overflow": lane in settings.lanes.overflow,
            }
            for lane in Lane
        ],
    }
