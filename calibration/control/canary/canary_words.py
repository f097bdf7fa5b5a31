"""What a canary's report says first: what serves now, and what is left to do. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bitladder.settings.live_values import in_words
from calibration.control.canary.pair_journal import CanaryState
from calibration.control.canary.spec import key_of, take_back


def now_in_words(state: CanaryState, folder: str) -> str:
    """Return what serves now, and what somebody may do."""
    spec, share = state.spec, f"{state.spec.share:.0%} of the keys"
    if state.phase == "rolled back":
        former = f"are answered by {spec.model}" if spec.candidate else f"go by policy {spec.current_policy}"
        begun = f" (what it has begun, {spec.candidate} ends)" if spec.candidate else ""
        return f"all requests for {spec.model} {former} again{begun}. Nothing is left to do."
    if state.phase == "promoted":
        way = "are answered by" if spec.candidate else "go by"
        return f"all requests for {spec.model} {way} {spec.what}. The way back: {_way_back(state)}."
    if state.phase == "left alone":
        return f"{key_of(spec)} is as somebody else has set it: `bitladder settings history` says who, when and why."
    held = f"{share} go to {spec.what} until {in_words(state.leased_until)} UTC, and longer while its process runs"
    stop = f"`bitladder calibrate canary stop -o {folder}` takes them back"
    if state.phase == "running":
        return f"{held}. {stop}."
    return f"{held}. `bitladder calibrate canary promote -o {folder}` gives it everything, {stop}."


def _way_back(state: CanaryState) -> str:
    key, (was, was_live) = key_of(state.spec), state.policy_before
    values = take_back(state.spec, was, was_live=was_live).values
    return (
        f"`bitladder settings set '{key}={json.dumps(values[key])}'`" if values else f"`bitladder settings unset {key}`"
    )


def times_in_words(state: CanaryState) -> Mapping[str, str]:
    """Return what was when, in UTC."""
    times = {"begun": state.started_at, "decided": state.decided_at, "ended": state.ended_at}
    return {name: f"{in_words(at)} UTC" for name, at in times.items() if at}
