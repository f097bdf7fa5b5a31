"""Publish and roll back: report -> digest -> inspect -> gate -> ladder.toml. Read this first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bitladder.settings.release import Evaluation, Release, ReleaseModel, ReleaseTier
from bitladder.settings.sections import Settings
from calibration.artifacts.digest import file_digest
from calibration.artifacts.evaluation_report import Report, TierReport, read_report
from calibration.artifacts.hardware import speed_of_another
from calibration.errors import InputError, PublishRefusedError
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Inspection, Verdict
from calibration.publishing.folders import OnStep, changes, folder_of, mark, portable
from calibration.publishing.gate import check_limits, judge
from calibration.publishing.incumbent import Waivers, replacement
from calibration.publishing.release_file import ReleaseStore
from calibration.terminal.progress import now_and_then

MAX_NOTE_CHARS = 500
# By model and by tier.
Tiers = Mapping[str, Mapping[str, ReleaseTier]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be published."""

    report: Path
    tiers: Sequence[str] = ()  # empty: all that the report and the model have, but the reference
    note: str = ""
    waivers: Waivers = field(default_factory=Waivers)


def publish(choice: Choice, settings: Settings, store: ReleaseStore, on_step: OnStep) -> Release:
    """Make the measured checkpoints the published ones, all or none; tiers that are not named stay as they were.

    Raises:
        InputError: report, settings and tiers do not go together, or there is no place for a release.
        PublishRefusedError: a tier changed since it was measured, failed its inspection, lost too much, or is worse
            than what it would replace.

    """
    _check_note(choice.note)
    report, report_digest = read_report(choice.report), file_digest(choice.report)
    _check_tier_limits(settings)
    for limit in check_limits(settings.publish, report, of_one_model=len(settings.models) == 1):
        on_step(report.model, f"{limit} was not measured and judges nothing here")
    tiers = _chosen(report, choice.tiers, settings)
    with store.locked():  # what is wrong with its place is said before all files are read, which may take minutes
        present = store.present()
    if report.reference in settings.models[report.model].ladder:
        _speak_of_reference(report.reference, tiers, on_step)
    served = present.digests(report.model) if present else {}
    refused = [text for tier in tiers for text in _refusals(tier, report, settings, on_step)]
    refused += [text for tier in tiers for text in _replacing(tier, report, served, settings, choice.waivers, on_step)]
    if refused:
        raise PublishRefusedError("nothing was published:\n" + "\n".join(refused))
    evaluation = Evaluation(
        report=report_digest,
        reference=report.reference,
        made_at=report.made_at,
        sources=report.sources,
        versions=report.versions,
        machine=report.machine,
    )
    new = {tier.tier: _entry(tier, evaluation, settings) for tier in tiers}
    with store.locked():
        former = store.present()
        kept = _known(former.models if former else {}, settings)
        tiers_of_model = {**kept.get(report.model, {}), **new}
        by_model = {**kept, report.model: tiers_of_model}
        models = {name: ReleaseModel(tiers=dict(tiers)) for name, tiers in by_model.items()}
        if former and former.models == models:
            on_step(report.model, f"release {former.version} says this already: nothing changed")
            return former
        release = _write(store, models, choice.note)
    mark(release, settings, store.file, on_step)
    return release


def roll_back(to: int | None, settings: Settings, store: ReleaseStore, on_step: OnStep) -> Release:
    """Publish a former release again, under a new version; by default the one before the present.

    Before the first release the configuration counts: a release without tiers, and 0 as a version.

    Raises:
        InputError: there is no such release.
        PublishRefusedError: one of its checkpoints is gone or was replaced, or a tier would have none.

    """
    with store.locked():
        present, former = store.present(), store.former()
        if present is None:
            raise InputError(f"there is no release in {store.file}: nothing to go back from")
        target = _target(to, present, former)
        models = former[target].models if target else {}
        known = _known(models, settings)
        if known != {name: model.tiers for name, model in models.items()}:
            raise InputError(f"release {target} has tiers that the configuration has no more: publish anew")
        refused = [
            text
            for name, tiers in known.items()
            for tier, entry in tiers.items()
            for text in changes(f"{name} {tier}", folder_of(entry.checkpoint, settings), entry.digest, on_step)
        ]
        refused += _unconfigured(_known(present.models, settings), known, settings)
        if refused:
            raise PublishRefusedError("nothing was changed:\n" + "\n".join(refused))
        note = f"rollback to {target or 'the configuration'}"
        release = _write(store, models, note, restored=former[target].content if target else 0)
    mark(release, settings, store.file, on_step)
    return release


def _target(to: int | None, present: Release, former: Mapping[int, Release]) -> int:
    """Return the version to go back to, which is one of the former or 0."""
    known = ", ".join(map(str, former)) or "none"
    if not to and present.content == 0:
        raise InputError(f"the configuration's own tiers are served: nothing to go back from; former releases: {known}")
    if to is None:
        older = [version for version in former if version < present.content]
        if not older and present.content > 1:
            raise InputError(
                f"no release before {present.content} is kept any more; kept are {known}, and --to 0 goes back to the "
                "configuration's own tiers"
            )
        return max(older, default=0)
    if to not in (0, *former):
        raise InputError(f"there is no former release {to}; kept are {known}, and 0 is the configuration's own tiers")
    return to


def _unconfigured(present: Tiers, target: Tiers, settings: Settings) -> list[str]:
    """Return what tells that a tier which is published no more has no checkpoint in the configuration either."""
    problems = []
    for name, tiers in present.items():
        for tier in tiers.keys() - target.get(name, {}).keys():
            checkpoint = settings.models[name].tier(tier).checkpoint
            if not checkpoint:
                problems.append(f"{name} {tier}: the configuration names no checkpoint")
            elif not ((folder := folder_of(checkpoint, settings)) / "config.json").is_file():
                problems.append(f"{name} {tier}: the configuration's checkpoint is not in {folder}")
    return sorted(problems)


def _check_note(note: str) -> None:
    if len(note) > MAX_NOTE_CHARS:
        raise InputError(f"--note: must be at most {MAX_NOTE_CHARS} characters, got {len(note)}")
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--note: must be UTF-8, got {note!r}") from error


def _chosen(report: Report, names: Sequence[str], settings: Settings) -> list[TierReport]:
    if report.model not in settings.models:
        raise InputError(f"the report is of model {report.model!r}; the configuration has {', '.join(settings.models)}")
    ladder = settings.models[report.model].ladder
    measured = [tier.tier for tier in report.tiers]
    chosen = names or [tier for tier in ladder if tier in measured and tier != report.reference]
    for name in chosen:
        if name not in ladder or name not in measured:
            raise InputError(
                f"tier {name!r} must be one of the model ({', '.join(ladder)}) and measured ({', '.join(measured)})"
            )
    if not chosen:
        raise InputError(
            f"the report has {', '.join(measured)}, the model {', '.join(ladder)}: none in common beside the reference "
            f"({report.reference}), which is published only where --tiers names it"
        )
    return [tier for tier in report.tiers if tier.tier in chosen]


def _speak_of_reference(name: str, tiers: Sequence[TierReport], on_step: OnStep) -> None:
    if name in [tier.tier for tier in tiers]:
        on_step(name, "the reference, published without a limit: it was held against nothing")
    else:
        on_step(name, f"the reference, not published: it was held against nothing (--tiers {name} names it)")


def _known(models: Mapping[str, ReleaseModel], settings: Settings) -> Tiers:
    """Return the tiers that the configuration still has: every process refuses a release that names others."""
    by_model = {
        name: {tier: entry for tier, entry in model.tiers.items() if tier in settings.models[name].ladder}
        for name, model in models.items()
        if name in settings.models
    }
    return {name: tiers for name, tiers in by_model.items() if tiers}


def _refusals(tier: TierReport, report: Report, settings: Settings, on_step: OnStep) -> list[str]:
    folder = Path(tier.checkpoint)
    reasons = changes(tier.tier, folder, tier.digest, on_step)
    if not reasons:
        on_step(tier.tier, "inspecting")
        advance = now_and_then(partial(on_step, tier.tier), "inspecting, tensors")
        reasons = _defects(tier.tier, inspect_checkpoint(folder, advance))
    hardware = settings.models[report.model].tier(tier.tier).hardware
    is_reference = tier.tier == report.reference
    verdict = judge(tier, settings.publish, report.machine, is_reference=is_reference, hardware=hardware)
    for note in verdict.notes:
        on_step(tier.tier, note)
    if elsewhere := speed_of_another(hardware, report.machine):
        on_step(tier.tier, f"its speed is not that of the tier: {elsewhere}")
    return [*reasons, *(f"{tier.tier}: {text}" for text in verdict.reasons)]


def _replacing(
    tier: TierReport,
    report: Report,
    served: Mapping[str, str],
    settings: Settings,
    waivers: Waivers,
    on_step: OnStep,
) -> list[str]:
    """Return why a tier must not take the place of what the present release serves; the reference may."""
    if tier.tier == report.reference:
        return []
    judged = replacement(tier, served.get(tier.tier, ""), settings.publish, waivers)
    for note in judged.notes:
        on_step(tier.tier, note)
    return [f"{tier.tier}: {text}" for text in judged.reasons]


def _check_tier_limits(settings: Settings) -> None:
    """Raise InputError if there are limits for a tier that no model has: they would never apply."""
    known = list(dict.fromkeys(tier for model in settings.models.values() for tier in model.ladder))
    for name in settings.publish.tiers:
        if name not in known:
            raise InputError(f"publish.tiers.{name}: there is no such tier; there is {', '.join(known)}")


def _defects(name: str, inspection: Inspection) -> list[str]:
    return [
        f"{name}: inspect: {check.name}: {text}"
        for check in inspection.checks
        if check.verdict is Verdict.FAIL
        for text in check.texts
    ]


def _entry(tier: TierReport, evaluation: Evaluation, settings: Settings) -> ReleaseTier:
    figures: dict[str, Any] = msgspec.to_builtins({"measured": tier.metrics, "recovery": tier.recovery})
    return ReleaseTier(
        checkpoint=portable(Path(tier.checkpoint), settings), digest=tier.digest, evaluation=evaluation, **figures
    )


def _write(store: ReleaseStore, models: Mapping[str, ReleaseModel], note: str, restored: int | None = None) -> Release:
    release = Release(
        version=store.next_version(),
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        note=note,
        restored=restored,
        models=dict(models),
    )
    store.write(release)
    return release
