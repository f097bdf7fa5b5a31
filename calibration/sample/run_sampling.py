"""Take a sample: continue the last run, read, choose, write the set's folder. Read this first."""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from calibration.artifacts.folder import claimed, full_disk_named, staged
from calibration.errors import CalibrationError, InputError
from calibration.sample.bookmark import Bookmark, SampleProgress
from calibration.sample.prompt import BadEntry, Prompt
from calibration.sample.reservoir import Member, Reservoir
from calibration.sample.sets import SampleSet, as_text, finished, is_ours, require_unmixed, write_manifest, write_texts
from calibration.sample.source import Source
from calibration.sample.strata import CALIBRATION, HELDOUT, HELDOUT_SHARE, choose, mixed, split_of, stratum_of

# Part of every manifest: raise it when the rules change, so that sets made before are made anew.
SAMPLER_VERSION = 3
# The reservoirs are larger than what is chosen from them, because the split is not exactly 80 to 20.
_SPARE = 1.25
_SHOW_EVERY = 1000

# What of a stratum the manifest counts by.
_PARTS = ("kind", "language", "length", "tier")

OnProgress = Callable[[SampleProgress], None]


class SampleOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked for."""

    count: int  # texts to calibrate with
    heldout: int  # texts to measure on
    min_prompts: int = msgspec.field(
        name="least"
    )  # as manifests have it: different prompts, below which there is no set
    max_chars: int  # of one text; the rest is cut off
    memory_mb: int  # for the texts that may be chosen
    seed: int
    group: str = ""  # the field of a record that is a stratum; left out of the manifest where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A set on disk."""

    folder: Path
    manifest: dict[str, Any]  # Any: JSON
    skipped: bool  # it was finished before


def sample(source: Source, plan: SampleOptions, into: Path, *, force: bool, on_progress: OnProgress) -> Sampled:
    """Make the set, unless it is there already.

    Raises:
        SourceError: the source is empty, unreachable, or may not be read, or whole files of it were not understood.
        InputError: it has too few different prompts; the next run reads it again, because it may have more by then.
        DiskFullError: there is no room; what was read is not read again, if there was room for the bookmark.

    """
    parent, name = into.parent, into.name
    request = {"sampler": SAMPLER_VERSION, "source": source.name, **msgspec.to_builtins(plan)}

    def finished_manifest() -> dict[str, Any] | None:  # Any: JSON
        return None if force else finished(into, request)

    claim = claimed(into, "--out", is_ours, lambda: None, lambda: finished_manifest() is not None)
    with full_disk_named(parent, "--out"), claim:
        if (manifest := finished_manifest()) is not None:
            return Sampled(folder=into, manifest=manifest, skipped=True)
        bookmark = Bookmark(parent / f".{name}.progress")
        if force:
            bookmark.remove()
        reservoir = Reservoir(seed=plan.seed, max_texts=_max_texts(plan), budget_bytes=plan.memory_mb * 2**20)
        progress = bookmark.load(SampleProgress(request=request, started_at=_now()), reservoir)
        on_progress(progress)  # from here on
        _read(source, plan.max_chars, progress, reservoir, bookmark, on_progress)
        try:
            progress.bytes.require()
            chosen = _choose(plan, progress, reservoir)
        except CalibrationError:
            bookmark.remove()
            raise
        with staged(into, private=True) as folder:
            files = write_texts(folder, chosen, progress.listed)
            manifest = _describe(progress, reservoir, files)
            write_manifest(folder, manifest)
        bookmark.remove()
    return Sampled(folder=into, manifest=manifest, skipped=False)


def _read(
    source: Source,
    max_chars: int,
    progress: SampleProgress,
    reservoir: Reservoir,
    bookmark: Bookmark,
    on_progress: OnProgress,
) -> None:
    """Offer every prompt of the source to the reservoir; if this fails, the next run continues from here."""
    try:
        for unit in source.units(progress.unit):
            for number, entries in enumerate(unit.prompts(), 1):
                if number <= progress.line:
                    continue
                for entry in entries:
                    _take(entry, f"{unit.name}:{number}", max_chars, progress, reservoir)
                progress.line = number
                if number % _SHOW_EVERY == 0:
                    on_progress(progress)
                bookmark.save_sometimes(progress, reservoir)
            progress.bytes.add(unit.name, unit.extent)
            progress.unit, progress.line = unit.name, 0
            on_progress(progress)
    except BaseException:
        if progress.seen:
            with contextlib.suppress(OSError):
                bookmark.save(progress, reservoir)
        raise
    bookmark.save(progress, reservoir)


def _take(entry: Prompt | BadEntry, where: str, max_chars: int, progress: SampleProgress, reservoir: Reservoir) -> None:
    progress.seen += 1
    if isinstance(entry, BadEntry):
        progress.skip(where, entry.reason)
        return
    progress.taken += 1
    was_cut = len(entry.text) > max_chars
    progress.cut += was_cut
    reservoir.offer(stratum_of(entry), entry.text[:max_chars], entry.split, was_cut=was_cut)


def _choose(plan: SampleOptions, progress: SampleProgress, reservoir: Reservoir) -> SampleSet:
    if len(reservoir.members) < plan.min_prompts:
        reasons = ", ".join(f"{times} {reason}" for reason, times in progress.skipped.items())
        raise InputError(
            f"{len(reservoir.members)} different prompts among {progress.seen} entries are too few to calibrate with: "
            f"at least {plan.min_prompts} are needed; more traffic, or --source packaged, or --least to go below"
            + (f" (skipped: {reasons})" if reasons else "")
        )
    halves: dict[str, list[Member]] = {CALIBRATION: [], HELDOUT: []}
    for member in reservoir.members.values():
        halves[split_of(member)].append(member)
    seen_of = {stratum: layer.seen for stratum, layer in reservoir.layers.items()}
    chosen = SampleSet(
        calibration=tuple(map(as_text, mixed(choose(halves[CALIBRATION], seen_of, plan.count)))),
        heldout=tuple(map(as_text, mixed(choose(halves[HELDOUT], seen_of, plan.heldout)))),
    )
    require_unmixed(chosen)
    return chosen


def _describe(
    progress: SampleProgress, reservoir: Reservoir, files: list[dict[str, Any]]
) -> dict[str, Any]:  # Any: JSON
    """Return the manifest."""
    return {
        "request": progress.request,
        "source": progress.request["source"],
        "seed": progress.request["seed"],
        "started_at": progress.started_at,
        "made_at": _now(),
        "versions": {name: version(name) for name in ("bitladder", "numpy")} | {"python": platform.python_version()},
        "counts": {
            "seen": progress.seen,
            "prompts": progress.taken,
            "skipped": progress.skipped,
            "cut": progress.cut,
            "repeats_met": reservoir.repeats,
            "near_duplicates_met": reservoir.near,
            "different_about": sum(layer.different for layer in reservoir.layers.values()),
            "bytes": {"understood": progress.bytes.understood, "not understood": progress.bytes.lost},
        },
        "not_understood": [str(file) for file in progress.bytes.files],
        "strata": {part: _by(part, reservoir) for part in _PARTS + ("group",) * bool(progress.request.get("group"))},
        "files": files,
    }


def _by(part: str, reservoir: Reservoir) -> dict[str, int]:
    """Count the prompts that came, by one part of their strata."""
    counts: Counter[str] = Counter()
    for stratum, layer in reservoir.layers.items():
        counts[str(getattr(stratum, part))] += layer.seen
    return dict(counts.most_common())


def _max_texts(plan: SampleOptions) -> int:
    return int(_SPARE * max(plan.count / (1 - HELDOUT_SHARE), plan.heldout / HELDOUT_SHARE)) + 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
