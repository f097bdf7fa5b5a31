"""What a pass of drift proposes. Features that move ask for new labels, and never take a promise back; losses may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from calibration.control.drift.drift_promise import Promise
from calibration.control.drift.feature_monitor import FeatureAlarm
from calibration.control.drift.loss_monitor import LossAlarm
from calibration.control.drift.next_step import NextStep
from calibration.control.proposals.proposal import Change, Proposal, is_same, new_proposal

FEATURES, LOSSES, AUTO = "drift: features", "drift: losses", "drift --auto"
_SHOWN = 3


class Auto(msgspec.Struct, frozen=True, kw_only=True):
    """Within what a threshold is applied without being asked."""

    max_step: float = 0.5  # the share of the limit in force that it may fall by
    per_day: int = 1


class LimitSetting(msgspec.Struct, frozen=True, kw_only=True):
    """The live setting that has the policy's limit, and its value; None: the policy's file says the limit."""

    key: str
    value: float | None
    since: str = ""  # when it was set live; empty: the file says it


def of_features(moved: Sequence[FeatureAlarm], requests: int, at: str) -> list[Proposal]:
    """Return the proposal to label anew, where features have moved."""
    if not moved:
        return []
    largest = sorted(moved, key=lambda alarm: -abs(alarm.deviations))
    names = dict.fromkeys(alarm.feature for alarm in largest)
    shown = ", ".join(in_words(next(a for a in largest if a.feature == name)) for name in list(names)[:_SHOWN])
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    reason = f"prompts are not like those that were labelled: {shown}{more}: label a sample of the new ones"
    evidence: dict[str, Any] = {"moved": msgspec.to_builtins(largest), "requests": requests}
    return [new_proposal("labels", reason, at=at, author=FEATURES, evidence=evidence)]


def of_losses(
    alarm: LossAlarm, step: NextStep, promise: Promise, in_force: float, setting: LimitSetting | None, at: str
) -> list[Proposal]:
    """Return what is proposed where a promise is broken: a limit that is proven, and what else it takes."""
    evidence: dict[str, Any] = msgspec.to_builtins(
        {"alarm": alarm, "step": step, "promise": promise, "limit_in_force": in_force}
    )
    broken = f"the promise is broken: {promise.broken_in_words(alarm.risk)}"
    proposals = []
    if step.limit is not None and step.limit < in_force:
        change = None
        if setting is not None:
            change = Change(settings={setting.key: step.limit}, was={setting.key: setting.value})
        reason = (
            f"{broken}; {step.labels} labels since then prove a limit of {step.limit:.4g} (in force {in_force:.4g}), "
            f"which sends {step.low_share:.0%} below the top"
        )
        proposals.append(new_proposal("threshold", reason, at=at, author=LOSSES, evidence=evidence, change=change))
    if not step.is_enough and step.more_labels is not None:
        reason = f"{broken}; {step.labels} labels since then prove too little: about {step.more_labels:,} more would"
        proposals.append(new_proposal("labels", reason, at=at, author=LOSSES, evidence=evidence))
    elif not step.is_enough:
        reason = (
            f"{broken}; no limit that sends requests below the top keeps it: the low tier needs a better checkpoint"
        )
        proposals.append(new_proposal("requantize", reason, at=at, author=LOSSES, evidence=evidence))
    return proposals


def in_words(alarm: FeatureAlarm) -> str:
    where = "" if alarm.group == "all" else f" of {alarm.group}"
    return (
        f"{alarm.feature}{where} {alarm.before:.3g} to {alarm.after:.3g} ({alarm.deviations:+.1f} SD, since request "
        f"{alarm.since:,})"
    )


def is_refused(proposal: Proposal, earlier: Sequence[Proposal]) -> bool:
    """Tell whether somebody has dismissed what would change the same because of the same alarms."""
    return any(
        item.state == "dismissed"
        and item.history[-1:] != ()
        and item.history[-1].author != item.author
        and is_same(item, proposal)
        and all(alarm in _alarms(item) for alarm in _alarms(proposal))
        for item in earlier
    )


def _alarms(proposal: Proposal) -> list[Any]:
    return [*proposal.evidence.get("moved", ()), proposal.evidence.get("alarm")]


def applied_on(day: str, proposals: Sequence[Proposal]) -> int:
    """Return how many were applied on a day without being asked."""
    events = [event for item in proposals for event in item.history]
    return sum((event.state, event.author, event.at[:10]) == ("applied", AUTO, day) for event in events)


def obstacle(proposal: Proposal, auto: Auto, applied_today: int, in_force: float) -> str:
    """Return why a proposal is not applied without being asked; '' where it may be."""
    if proposal.kind != "threshold" or proposal.change is None:
        return "only a limit is applied without being asked"
    (limit,) = proposal.change.settings.values()
    if limit > in_force:
        return f"a limit of {limit:g} is above the one in force, {in_force:g}"
    if limit < in_force * (1 - auto.max_step):
        return f"from {in_force:.4g} to {limit:.4g} is more than a step of {auto.max_step:g}"
    if applied_today >= auto.per_day:
        return f"{auto.per_day} of today's were applied already"
    return ""
