"""A sampled set on disk: texts in two halves, what was skipped, and a manifest. `load` reads and checks it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibration.artifacts.digest import MANIFEST_NAME, file_digest, text_id
from calibration.artifacts.manifest import is_listed, listed, read_fields
from calibration.errors import CalibrationError, InputError
from calibration.sample.bookmark import Skipped
from calibration.sample.near import NearIndex, folded, signature
from calibration.sample.reservoir import Member
from calibration.sample.strata import CALIBRATION, HELDOUT

SKIPPED = "skipped.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledText:
    """One line of a set."""

    id: str  # of the text: its SHA-256, shortened
    text: str
    kind: str
    language: str
    length: str
    tier: str
    cut: bool  # it was longer
    group: str = ""  # of the record, by --group


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Texts to calibrate with, and texts to measure on; no text is near one of the other half."""

    calibration: tuple[SampledText, ...]
    heldout: tuple[SampledText, ...]


def as_text(member: Member) -> SampledText:
    stratum = member.stratum
    return SampledText(
        id=text_id(member.text),
        text=member.text,
        kind=stratum.kind,
        language=stratum.language,
        length=stratum.length,
        tier=stratum.tier,
        cut=member.was_cut,
        group=stratum.group,
    )


def write_texts(folder: Path, chosen: SampleSet, skipped: Iterable[Skipped]) -> list[dict[str, Any]]:  # Any: JSON
    """Write the files of a set and return their entries in its manifest."""
    rows: dict[str, list[dict[str, Any]]] = {
        f"{CALIBRATION}.jsonl": [asdict(text) for text in chosen.calibration],
        f"{HELDOUT}.jsonl": [asdict(text) for text in chosen.heldout],
        SKIPPED: [{"where": entry.where, "reason": entry.reason} for entry in skipped],
    }
    return [_write(folder / name, lines) for name, lines in rows.items()]


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_ours(folder: Path) -> bool:
    """Tell whether the folder is a sampled set, and nothing else."""
    return is_set(folder) and is_listed(folder, "request")


def is_set(folder: Path) -> bool:
    """Tell whether the folder is a sampled set, by its manifest; `load` tells whether it is whole."""
    fields = read_fields(folder)
    return isinstance(fields.get("request"), dict) and "sampler" in fields["request"]


def set_of(file: Path) -> Path | None:
    """Return the folder of the sampled set that a file is of, however it is named; None for any other file."""
    folder = file.resolve().parent
    return folder if is_set(folder) and file.resolve().name in listed(read_fields(folder)) else None


def finished(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest if the folder holds a whole set that was made for this request."""
    manifest = read_fields(folder)
    try:
        whole = all((folder / file["name"]).stat().st_size == file["bytes"] for file in manifest["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return manifest if whole and manifest.get("request") == request else None


def load(folder: Path) -> SampleSet:
    """Read a set, and check that it is unchanged and that its halves share no text.

    Raises:
        InputError: there is no set, or its files are not those of its manifest.

    """
    try:
        files = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
        changed = [file["name"] for file in files if file_digest(folder / file["name"]) != file["sha256"]]
        sample_set = SampleSet(calibration=_read(folder, CALIBRATION), heldout=_read(folder, HELDOUT))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{str(folder)!r} is no sampled set ({error}); `bitladder calibrate sample` makes one"
        ) from error
    if changed:
        raise InputError(f"{str(folder)!r} was changed since it was sampled: {', '.join(changed)}")
    require_unmixed(sample_set)
    return sample_set


def checked_samples(path: Path) -> Path:
    """Return where to read the samples that a path names: a sampled set, which is loaded to check it, or a JSONL file.

    Raises:
        InputError: it is a folder but no whole set, or another file of a set: its other half is held out.

    """
    if path.is_dir():
        load(path)
        return path
    folder = set_of(path)
    if folder is None:
        return path
    if path.resolve().name != f"{CALIBRATION}.jsonl":
        raise InputError(
            f"--samples must not be held-out texts, which checkpoints are measured on, nor what was skipped, got "
            f"{str(path)!r}; the set that it is of is {str(folder)!r}"
        )
    return checked_samples(folder)


def require_unmixed(sample_set: SampleSet) -> None:
    """Raise CalibrationError if a held-out text is one, or is near one, of those to calibrate with."""
    index = NearIndex()
    for number, text in enumerate(sample_set.calibration):
        index.add(number, signature(folded(text.text)))
    for text in sample_set.heldout:
        if near := index.near(signature(folded(text.text))):
            other = sample_set.calibration[near[0]].id
            raise CalibrationError(f"held-out text {text.id} is nearly calibration text {other}: the set is mixed")


def _write(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return {"name": path.name, "lines": len(rows), "bytes": path.stat().st_size, "sha256": file_digest(path)}


def _read(folder: Path, split: str) -> tuple[SampledText, ...]:
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
        return tuple(SampledText(**json.loads(line)) for line in file)
