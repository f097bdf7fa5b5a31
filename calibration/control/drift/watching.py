"""One pass of drift: read on, judge features and losses apart, and remember it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from bitladder.decision import Score
from bitladder.policy_forms import FEATURE_NAMES, LearnedForm
from bitladder.routing.policies.learned import bound, inputs_of
from calibration.control.drift.drift_promise import Promise
from calibration.control.drift.drift_state import DriftState, FeatureState, GroupState, LossState, save_state
from calibration.control.drift.feature_monitor import FeatureAlarm, FeatureMonitor, Numbers, Plan, Reference
from calibration.control.drift.loss_monitor import LossPlan, first_alarm, log_capitals
from calibration.control.drift.next_step import candidate_limits
from calibration.control.drift.stream_lines import (
    BadLineError,
    Reading,
    Request,
    lines_behind,
    read_reference_line,
    read_request,
)
from calibration.control.proposals.author import time_now
from calibration.errors import InputError, SourceError
from calibration.texts.jsonl import read_lines

ALL = "all"
MIN_REFERENCE = 200
_BATCH = 2000  # lines after which what was read is written
_MAX_KEPT = 12_800  # labels of a broken promise


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream is held against: labelled prompts, and the policy with its promise, where there is one."""

    references: dict[str, Reference]
    plan: Plan
    policy: LearnedForm | None = None
    promise: Promise | None = None
    loss_plan: LossPlan = LossPlan()
    bounds: Numbers | None = None  # of the reference's prompts, by the policy's tiers

    @property
    def names(self) -> tuple[str, ...]:
        return self.references[ALL].names

    @property
    def reading(self) -> Reading:
        return Reading(names=self.names, policy=self.policy, promise=self.promise)

    @property
    def features_digest(self) -> str:
        tables = [item.table.tobytes() for item in self.references.values()]
        return _digest(self.plan, self.names, list(self.references), *tables)

    def losses_digest(self, limit: float) -> str:
        return _digest(self.policy, self.promise, self.loss_plan, limit)

    def limits(self, in_force: float) -> Numbers:
        assert self.bounds is not None  # noqa: S101  (where there is a promise)
        return candidate_limits(self.bounds, in_force)


def read_basis(
    path: Path, plan: Plan, policy: LearnedForm | None, promise: Promise | None, loss_plan: LossPlan, *, by_kind: bool
) -> Basis:
    """Read the reference labels.

    Raises:
        InputError: they are none, too few, or lack what the policy reads.

    """
    lines = read_lines(path, "label", read_reference_line)
    features = [line for line, _ in lines]
    names = [name for name in FEATURE_NAMES if all(name in line for line in features)]
    table = np.array([[line[name] for name in names] for line in features]).reshape(len(lines), len(names))
    if len(lines) < MIN_REFERENCE:
        raise InputError(f"{path}: {len(lines)} labels, expected at least {MIN_REFERENCE}: fewer show no drift")
    kept = [place for place in range(len(names)) if np.ptp(table[:, place]) > 0]
    if not kept:
        raise InputError(f"{path}: no feature is in every line with more than one value")
    bounds = None
    if policy is not None:
        if lacking := sorted({item.name for item in policy.inputs} - set(names)):
            raise InputError(f"{path}: the policy reads {', '.join(lacking)}, which not every label has")
        bounds = np.array(
            [
                [bound(form, inputs_of(policy.inputs, Score(**line))) for form in policy.tiers.values()]
                for line in features
            ]
        )
    kinds = np.array([kind for _, kind in lines])
    rows = {ALL: np.ones(len(lines), dtype=bool)}
    if by_kind:
        rows |= {kind: kinds == kind for kind in sorted(set(kinds)) if (kinds == kind).sum() >= MIN_REFERENCE}
    divided = msgspec.structs.replace(plan, level=plan.level / len(rows))
    chosen = tuple(names[place] for place in kept)
    references = {group: Reference(chosen, table[at][:, kept]) for group, at in rows.items()}
    return Basis(
        references=references, plan=divided, policy=policy, promise=promise, loss_plan=loss_plan, bounds=bounds
    )


class Watch:
    """What a stream is held against, and what is known of it."""

    def __init__(self, basis: Basis, state: DriftState, folder: Path, limit: float, since: str = "") -> None:
        """`limit`: the policy's limit in force, `since` when, where that is known."""
        self.basis, self.state, self._folder, self.limit = basis, state, folder, limit
        self._begin(state, since)
        self._monitors = {group: self._monitor(group) for group in basis.references}

    @property
    def thresholds(self) -> dict[str, float]:
        """The PSI beyond which a feature of all requests has moved."""
        monitor = self._monitors[ALL]
        return dict(zip(monitor.reference.names, map(float, monitor.thresholds), strict=True))

    def read_on(self, requests: Sequence[Path], shadow: Sequence[Path]) -> Iterator[int]:
        """Read what is new; yield how many lines were read so far, after each part that is written down.

        Labels count as requests too, unless requests are read for themselves.
        """
        sources = [(path, True, not shadow) for path in files_of(requests)]
        sources += [(path, not requests, True) for path in files_of(shadow)]
        if twice := set(files_of(requests)) & set(files_of(shadow)):
            raise InputError(f"{min(twice)} is in both --requests and --shadow: labels count as requests by themselves")
        batch: list[Request] = []
        self.state.marks = {name: mark for name, mark in self.state.marks.items() if Path(name).exists()}
        for path, has_features, has_losses in sources:
            losses = self.basis.reading if has_losses else Reading(names=self.basis.names)
            for count, (line, mark) in enumerate(lines_behind(path, self.state.marks.get(str(path), 0)), start=1):
                request = self._read(line, losses)
                if request is not None:
                    batch.append(request if has_features else msgspec.structs.replace(request, features=()))
                self.state.marks[str(path)] = mark
                if count % _BATCH == 0:
                    yield self._take(batch)
                    batch = []
        yield self._take(batch)

    def _read(self, line: bytes, reading: Reading) -> Request | None:
        self.state.lines += 1
        try:
            return read_request(line, reading)
        except BadLineError as error:
            self.state.skip(str(error))
            return None

    def _take(self, batch: Sequence[Request]) -> int:
        self._take_features([request for request in batch if request.features])
        self._take_losses(batch)
        save_state(self._folder, self.state)
        return self.state.lines

    def _take_features(self, batch: Sequence[Request]) -> None:
        for group in self._monitors:
            chosen = [request for request in batch if group in (ALL, request.kind)]
            while chosen:
                monitor = self._monitors[group]
                part = chosen[: monitor.plan.horizon - monitor.count]
                chosen = chosen[len(part) :]
                table = np.array([request.features for request in part])
                self._note(monitor.add(table, [request.at for request in part]))
                stored = self.state.features.groups[group]
                stored.rows += table.astype("<f8").tobytes()
                if monitor.indices and group == ALL:
                    named = zip(monitor.reference.names, map(float, monitor.indices[-1]), strict=True)
                    self.state.features.indices = dict(named)
                if monitor.is_over:
                    stored.begins_at, stored.rows = stored.begins_at + monitor.count, b""
                    self._monitors[group] = self._monitor(group)
        self.state.features.requests += len(batch)

    def _note(self, alarms: Sequence[FeatureAlarm]) -> None:
        known = {(item.feature, item.detector, item.group) for item in self.state.features.moved}
        for alarm in alarms:
            if (key := (alarm.feature, alarm.detector, alarm.group)) not in known:
                known.add(key)
                self.state.features.moved.append(alarm)

    def _take_losses(self, batch: Sequence[Request]) -> None:
        losses, promise, plan = self.state.losses, self.basis.promise, self.basis.loss_plan
        new = [
            request.label
            for request in batch
            if request.label is not None and not (request.at and request.at < losses.not_before)
        ]
        if promise is None or not new:
            return
        losses.labels += new
        losses.count += len(new)
        losses.over += sum(label.loss for label in new)
        if losses.alarm is None:
            lost = np.array([label.loss for label in losses.labels], dtype=float)
            # A file of before there were bets has labels, and no capitals: they are bet on all that it has.
            unseen = lost[-len(new) :] if losses.capitals else lost
            capitals = log_capitals(unseen, promise.among_labels, losses.capitals)
            losses.capitals = capitals[-1].tolist()
            losses.alarm = first_alarm(lost, promise, plan, losses.before, capitals)
        count = losses.before + len(losses.labels)
        if losses.alarm is not None:
            keep_from = losses.alarm.label  # what raised it is no evidence for another limit: see next_step
        else:  # what mapie's bounds look at that are not at their end
            keep_from = max(0, (count - plan.life) // plan.spacing * plan.spacing)
        if keep_from > losses.before:
            losses.labels, losses.before = losses.labels[keep_from - losses.before :], keep_from
        if losses.alarm is not None:
            losses.labels = losses.labels[:_MAX_KEPT]  # the last look that there is

    def _begin(self, state: DriftState, since: str) -> None:
        """Begin anew what is of another reference, promise or limit: what was served before that says nothing of it."""
        if state.features.digest != (digest := self.basis.features_digest):
            tails = {group: item.tail(self.basis.plan) for group, item in self.basis.references.items()}
            groups = {group: GroupState() for group in self.basis.references}
            state.features = FeatureState(digest=digest, tails=tails, groups=groups)
        if state.losses.digest != (digest := self.basis.losses_digest(self.limit)):
            state.losses = LossState(digest=digest, not_before=since or (time_now() if state.losses.digest else ""))

    def _monitor(self, group: str) -> FeatureMonitor:
        features = self.state.features
        stored, reference = features.groups[group], self.basis.references[group]
        monitor = FeatureMonitor(reference, self.basis.plan, features.tails[group], group, stored.begins_at)
        table = stored.table(len(reference.names))
        monitor.add(table, [""] * len(table))  # what it raised is noted
        return monitor


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return these files, and those in these folders whose names end in .jsonl, in the order of their names.

    Raises:
        SourceError: there is nothing of that name.

    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise SourceError(f"there is no file or folder {str(path)!r}")
        whole = path.resolve()  # however it is named, each line counts once
        files += sorted(whole.glob("*.jsonl")) if whole.is_dir() else [whole]
    return files


def _digest(*parts: object) -> str:
    return hashlib.sha256(b"".join(map(_content, parts))).hexdigest()


def _content(part: object) -> bytes:
    content = part if isinstance(part, bytes) else msgspec.json.encode(part)
    return len(content).to_bytes(8, "big") + content
