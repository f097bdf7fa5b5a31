"""manifest.json of a checkpoint: what it was made of, how it was measured, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calibration.artifacts.digest import MANIFEST_NAME, file_digest
from calibration.artifacts.folder import PUBLISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class _WeightFile:
    """One file of weights, as it was when it was measured."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Written last: a folder without it is half-written."""

    tier: str
    recipe_hash: str
    fingerprint: dict[str, Any]  # Any: JSON; what the hash was taken of, for people
    versions: dict[str, str]
    made_at: str
    seconds: float
    weights: tuple[_WeightFile, ...]
    measured: str
    perplexity: float | None  # None: it was not measured
    reference_perplexity: float | None
    cpu_s: float = 0.0  # of all threads of the quantizer; `seconds` is the wall clock
    peak_mb: int = 0  # the most memory that the quantizer's process held
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # held-out kind -> its figures
    calibration: dict[str, int] = field(default_factory=dict)  # samples and tokens that were read
    refused: tuple[str, ...] = ()  # in what it is worse than its recipe allows
    quick: bool = False  # it stands in for a measured one: `make checkpoints` replaces it
    files: tuple[str, ...] = ()  # all that is in the folder, to tell what was added; (): of before they were listed

    @property
    def weight_bytes(self) -> int:
        return sum(file.size_bytes for file in self.weights)


def is_checkpoint(folder: Path) -> bool:
    """Tell whether bitladder made what is in this folder, by any recipe, and nobody has added to it or published it."""
    if (folder / PUBLISHED).exists():
        return False
    return was_made(folder) and ("files" not in read_fields(folder) or is_listed(folder, "recipe_hash"))


def was_made(folder: Path) -> bool:
    """Tell whether bitladder made the checkpoint in this folder; the folder may hold other files."""
    return "recipe_hash" in read_fields(folder)


def is_listed(folder: Path, field: str) -> bool:
    """Tell whether the folder's manifest has this field, and lists every other file that is there."""
    fields = read_fields(folder)
    return {field, "files"} <= fields.keys() and {path.name for path in folder.iterdir()} <= {
        MANIFEST_NAME,
        *listed(fields),
    }


def listed(fields: Mapping[str, Any]) -> set[str]:  # Any: JSON
    """Return the names of the files that a manifest lists; none where it lists none."""
    try:
        return {entry if isinstance(entry, str) else entry["name"] for entry in fields["files"]}
    except (TypeError, KeyError):
        return set()


def describe_files(folder: Path) -> tuple[str, ...]:
    """Return the names of everything that is in a folder."""
    return tuple(sorted(path.name for path in folder.iterdir()))


def read_fields(folder: Path) -> dict[str, Any]:  # Any: JSON
    """Return the manifest of a folder as it is; {} where there is none that can be read."""
    try:
        fields = json.loads((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, or None where there is none of a checkpoint."""
    fields = read_fields(folder)
    try:
        weights = tuple(_WeightFile(**file) for file in fields.pop("weights"))
        files, refused = tuple(fields.pop("files", ())), tuple(fields.pop("refused", ()))
        are_names = all(isinstance(file.name, str) and Path(file.name).name == file.name for file in weights)
        return Manifest(weights=weights, files=files, refused=refused, **fields) if are_names else None
    except (ValueError, TypeError, KeyError):
        return None


def finished_manifest(folder: Path, wanted_hash: str, *, or_measured: bool = False) -> Manifest | None:
    """Return the manifest if the folder holds a whole checkpoint of this recipe, else None.

    With `or_measured` any measured checkpoint will do: it is better than what only stands in for one.

    Sizes are compared, digests are not: reading every weight would make the check as slow as it is rarely needed.
    """
    manifest = read_manifest(folder)
    if manifest is None or not manifest.weights:
        return None
    if manifest.recipe_hash != wanted_hash and not (or_measured and not manifest.quick):
        return None
    whole = all(_has_size(folder / file.name, file.size_bytes) for file in manifest.weights)
    return manifest if whole else None


def describe_weights(folder: Path) -> tuple[_WeightFile, ...]:
    """Return name, size and digest of every weight file in the folder."""
    return tuple(
        _WeightFile(name=path.name, size_bytes=path.stat().st_size, sha256=file_digest(path))
        for path in sorted(folder.glob("*.safetensors"))
    )


def _has_size(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes
