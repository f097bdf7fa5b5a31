"""Run a canary: give the share, compare pair by pair, and promote, take back, or go on. Read this first.

Whatever ends it early or without proof takes the share back. All that it needs to go on is on disk: a run that was
killed goes on with the same call, and `stop` ends one that nobody runs any more.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

from bitladder.settings.load import Loaded
from calibration.control.canary.canary_prompts import PromptSource
from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.ending import End, end_canary
from calibration.control.canary.pair_journal import CanaryState, HeldError, Journal, Phase, ask_for, read_state
from calibration.control.canary.pair_placing import Placing, resolved
from calibration.control.canary.spec import Spec, is_promoted, key_of, promote, share_of
from calibration.control.canary.trial import STOPPED, RunOptions, Trial, give_share
from calibration.control.proposals.author import time_now
from calibration.control.proposals.proposal import Change as ProposedChange
from calibration.control.proposals.proposal import Proposal, new_proposal
from calibration.errors import InputError, ProposalRefusedError

# How long a process that watches may take to do what it was asked for.
_ORDER_S, _PAUSE_S = 120.0, 0.2


def run_canary(spec: Spec, prompts: Path, folder: Path, loaded: Loaded, options: RunOptions) -> CanaryState:
    """Run a canary to its end, from where it was; `loaded`: the configuration of the stack.

    Raises:
        InputError: something does not fit, or the folder has another canary. Nothing was changed.

    """
    with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
        state, settings = journal.state(), steering.effective(loaded)
        if state is not None:
            asked = {"reference": spec.reference or state.spec.reference, "current_policy": state.spec.current_policy}
            if (state.spec, state.prompts) != (msgspec.structs.replace(spec, **asked), str(prompts)):
                raise InputError(f"--out {str(folder)!r} has another canary ({state.spec.what}): choose another folder")
            ending: Phase | None = state.ending  # killed on the way
            if state.phase == "awaits promotion" and options.promotes:
                ending = ending or "promoted"
            if ending:
                state = end_canary(journal, steering, state, End(ending, state.why, state.decision), options.retry)
            if state.is_over:
                return state
            options.say(f"going on after {len(journal.pairs)} pairs")
        whole = state.spec if state else resolved(spec, settings)
        placing = Placing(whole, settings)
        source = PromptSource(prompts, {whole.model, whole.served_by}, whole.seed)
        if state is None:
            state = _begin(whole, str(prompts), journal, steering, options)
        return asyncio.run(Trial(journal, steering, options, state).to_the_end(placing, source))


def promote_canary(folder: Path, options: RunOptions) -> CanaryState:
    """Promote a candidate that was found fine, or have the process that watches it do so.

    Raises:
        InputError: none waits for it, or was promoted before.
        ProposalRefusedError: somebody else has changed the share since.

    """
    state = _promotable(folder)
    try:
        with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
            state = _promotable(folder)  # a process that watched it may just have ended it
            if state.phase == "promoted":
                return state
            return end_canary(journal, steering, state, End("promoted", state.why, state.decision), options.retry)
    except HeldError:
        ask_for(folder, "promote")
    end_s = time.monotonic() + _ORDER_S
    while not state.is_over and time.monotonic() < end_s:
        time.sleep(_PAUSE_S)
        state = read_state(folder) or state
    return state


def _promotable(folder: Path) -> CanaryState:
    state = read_state(folder)
    if state is None or state.phase not in ("awaits promotion", "promoted"):
        raise InputError(f"the canary of {str(folder)!r} is {state.phase if state else 'not started'}")
    return state


def stop_canary(folder: Path, options: RunOptions) -> CanaryState:
    """Take the share back, or have the process that runs the canary do it: then it is still running.

    Raises:
        InputError: none was started, or it is over.

    """
    state = _stoppable(folder)
    ask_for(folder, "stop")
    try:
        with Journal.opened(folder) as journal, CanaryStack(options.url, options.api_key) as steering:
            state = _stoppable(folder)  # a process that ran it may just have ended it
            if is_promoted(state.spec, steering.value(state.spec)):
                key = key_of(state.spec)
                raise InputError(f"{state.spec.what} has everything already: set or unset {key} (bitladder settings)")
            return end_canary(journal, steering, state, End("rolled back", STOPPED, state.decision), options.retry)
    except HeldError:
        return state


def _stoppable(folder: Path) -> CanaryState:
    state = read_state(folder)
    if state is None or state.is_over:
        raise InputError(f"the canary of {str(folder)!r} is {state.phase if state else 'not started'}")
    return state


def proposal_of(state: CanaryState, steering: CanaryStack, evidence: dict[str, Any]) -> Proposal:
    """Return what people are asked for a candidate that is fine: to give it everything."""
    change, rows = promote(state.spec), steering.read()[1]
    was = {key: rows[key].value for key in change.values if key in rows}
    return new_proposal(
        "promote",
        f"{state.spec.what} is fine for {state.spec.model}: {state.why}"[:2000],
        at=time_now(),
        author="calibrate canary",
        evidence=evidence,
        change=ProposedChange(settings=change.values, was=was),
    )


def _begin(spec: Spec, prompts: str, journal: Journal, steering: CanaryStack, options: RunOptions) -> CanaryState:
    """Write what takes the share back, then give it."""
    if journal.order or journal.pairs:
        raise InputError(f"--out {str(journal.folder)!r} has parts of another canary: choose another folder")
    if other := share_of(spec, steering.value(spec)):
        raise InputError(f"{other} has a share of {spec.model} already: another canary runs, or one was left")
    state = journal.write(
        CanaryState(
            spec=spec,
            prompts=prompts,
            started_at=time.time(),
            policy_before=steering.policy_before(spec) if spec.policy else (None, False),
            counts_before=steering.counts(spec),
        )
    )
    try:
        return give_share(journal, steering, state, options.lease_s)
    except ProposalRefusedError as error:
        journal.discard()
        raise InputError(str(error)) from error
