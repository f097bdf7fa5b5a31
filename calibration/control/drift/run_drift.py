"""The command's one pass: what is new is read and judged, proposed, and within stated limits applied."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bitladder.policy_forms import LearnedForm
from calibration.artifacts.folder import locked, write_output, writing
from calibration.control.drift.drift_metrics import ROWS, values_of
from calibration.control.drift.drift_page import drift_page
from calibration.control.drift.drift_proposals import (
    AUTO,
    LOSSES,
    Auto,
    LimitSetting,
    applied_on,
    is_refused,
    obstacle,
    of_features,
    of_losses,
)
from calibration.control.drift.drift_state import STATE_OPTION, DriftState, load_state
from calibration.control.drift.loss_monitor import least_risk
from calibration.control.drift.next_step import NextStep, next_step
from calibration.control.drift.watching import Basis, Watch
from calibration.control.metrics_file import write_metrics
from calibration.control.proposals.applying import apply
from calibration.control.proposals.author import as_time, time_now
from calibration.control.proposals.intake_settings import IntakeSettings
from calibration.control.proposals.proposal import Proposal
from calibration.control.proposals.proposal_folder import ProposalStore
from calibration.errors import CalibrationError, InputError, ProposalRefusedError

# By then all processes of a stack go by a live setting.
_TAKEN_WITHIN_S = 2


@dataclass(frozen=True, slots=True)
class DriftStreams:
    """Where a pass reads and writes: streams of requests and of labels; the state's and the proposals' folders."""

    requests: tuple[Path, ...]
    shadow: tuple[Path, ...]
    state: Path
    proposals: Path
    metrics: Path | None = None
    page: Path | None = None


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """What streams are held against, and what may be done about it."""

    basis: Basis
    streams: DriftStreams
    policy_name: str = ""  # of the table [policies.NAME] whose limit would be changed
    auto: Auto | None = None
    intake: IntakeSettings | None = None
    say: Callable[[int | None], None] = lambda lines: None  # lines read so far; None: it waits for another command


def run(options: DriftOptions) -> dict[str, Any]:  # Any: JSON
    """Do one pass; return what it has found and done.

    Raises:
        InputError, SourceError: something that is named cannot be read, or is wrong.
        EngineFailedError: the intake does not answer.

    """
    with ExitStack() as held:
        with writing(options.streams.state, STATE_OPTION):
            held.enter_context(locked(options.streams.state, "drift", lambda: options.say(None)))
        _finish(options)
        setting = _setting(options)
        limit = _limit(options.basis.policy, setting)
        state = load_state(options.streams.state)
        watch = Watch(options.basis, state, options.streams.state, limit, setting.since if setting else "")
        for lines in watch.read_on(options.streams.requests, options.streams.shadow):
            options.say(lines)
        step, proposals = _propose(options, state, limit, setting)
        applied, left = _apply(options, limit, proposals)
        answer = {
            "requests": state.features.requests,
            "moved": msgspec.to_builtins(state.features.moved),
            "indices": state.features.indices,
            "thresholds": watch.thresholds,
            "losses": _losses(options.basis, state, limit, step),
            "lines": state.lines,
            "skipped": state.skipped,
            "proposals": [msgspec.to_builtins(proposal) for proposal in proposals],
            "applied": applied,
            "not_applied": left,
        }
        if options.streams.metrics is not None:
            write_metrics(options.streams.metrics, ROWS, values_of(answer))
        if options.streams.page is not None:
            write_output(options.streams.page, drift_page(answer).encode(), "--page")
    return answer


def _finish(options: DriftOptions) -> None:
    """Apply what a process was killed in the midst of applying: nobody knows whether it is in force."""
    if options.auto is None or options.intake is None:
        return
    store = ProposalStore(options.streams.proposals, lambda: options.say(None))
    for proposal in store.all()[0]:
        if proposal.state == "open" and proposal.undo is not None and proposal.author == LOSSES:
            with suppress(ProposalRefusedError):  # another limit is in force since: people see it in the list
                apply(store, proposal.id, options.intake, at=time_now(), author=AUTO)


def _setting(options: DriftOptions) -> LimitSetting | None:
    if not options.policy_name:
        return None
    key = f"policies.{options.policy_name}.limit"
    if options.intake is None:
        return LimitSetting(key=key, value=None)
    rows = options.intake.read()[1]
    if key not in rows:
        raise InputError(f"the intake has no table [policies.{options.policy_name}]: see --policy-name")
    row = rows[key]
    since = "" if row.at is None else as_time(row.at + _TAKEN_WITHIN_S)
    return LimitSetting(key=key, value=None if row.value is None else float(row.value), since=since)


def _limit(policy: LearnedForm | None, setting: LimitSetting | None) -> float:
    if setting is not None and setting.value is not None:
        return setting.value
    return 0.0 if policy is None else policy.limit


def _propose(
    options: DriftOptions, state: DriftState, limit: float, setting: LimitSetting | None
) -> tuple[NextStep | None, list[Proposal]]:
    at, store, basis = time_now(), ProposalStore(options.streams.proposals, lambda: options.say(None)), options.basis
    proposals = of_features(state.features.moved, state.features.requests, at)
    step = None
    if state.losses.alarm is not None and basis.promise is not None:
        limits = basis.limits(limit)
        step = next_step(state.losses.labels, limits, basis.promise)
        proposals += of_losses(state.losses.alarm, step, basis.promise, limit, setting, at)
    earlier = store.all()[0] if proposals else []
    return step, [store.add(proposal) for proposal in proposals if not is_refused(proposal, earlier)]


def _apply(options: DriftOptions, limit: float, proposals: list[Proposal]) -> tuple[list[str], dict[str, str]]:
    """Apply what may be applied without being asked; return what was, and why the rest was not."""
    applied: list[str] = []
    left: dict[str, str] = {}
    if options.auto is None or options.intake is None:
        return applied, left
    store = ProposalStore(options.streams.proposals, lambda: options.say(None))
    for proposal in proposals:
        if why := obstacle(proposal, options.auto, applied_on(time_now()[:10], store.all()[0]), limit):
            left[proposal.id] = why
            continue
        try:
            apply(store, proposal.id, options.intake, at=time_now(), author=AUTO)
        except CalibrationError as error:
            left[proposal.id] = str(error)
            continue
        applied.append(proposal.id)
    return applied, left


def _losses(basis: Basis, state: DriftState, limit: float, step: NextStep | None) -> dict[str, Any] | None:
    promise, losses = basis.promise, state.losses
    if promise is None:
        return None
    count = losses.count
    risk, bound, so_far = None, 0.0, "no label yet"
    if count:
        risk, lost = promise.risk(losses.over / count), np.array([label.loss for label in losses.labels], dtype=float)
        bound = least_risk(lost, promise, basis.loss_plan, losses.before) if losses.labels else 0.0
        so_far = (
            f"{promise.risk_in_words(risk)} in {count:,} labels, at least {promise.risk_in_words(bound)} in the last "
            "of them (mapie's bound)"
        )
    return {
        "promise": msgspec.to_builtins(promise),
        "in_words": promise.in_words,
        "so_far": so_far,
        "limit": limit,
        "labels": count,
        "risk": risk,
        "least_risk": bound,
        "is_broken": losses.alarm is not None,
        "alarm": msgspec.to_builtins(losses.alarm),
        "step": msgspec.to_builtins(step),
    }
