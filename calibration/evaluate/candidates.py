"""The checkpoints that are measured, each as the tier that it is or would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bitladder.settings.sections import ModelSettings, TierSettings, VllmSettings
from calibration.artifacts.digest import checkpoint_digest
from calibration.artifacts.manifest import read_manifest
from calibration.errors import InputError
from workers.engines.errors import EngineFaultError
from workers.engines.vllm_server import checkpoint_path


@dataclass(frozen=True, slots=True)
class Candidate:
    """One checkpoint with the settings that it is served with."""

    path: Path
    tier: TierSettings
    digest: str

    @property
    def name(self) -> str:
        return self.tier.name

    @property
    def weight_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.glob("*.safetensors"))

    def inputs(self, vllm: VllmSettings, version: str) -> dict[str, Any]:
        """Return all that results depend on beside the measure, as JSON."""
        engine = {"version": version, "args": [*vllm.args, *self.tier.vllm_args], "env": vllm.env}
        return {"checkpoint": self.digest, "engine": engine}


@dataclass(frozen=True, slots=True)
class CheckpointArg:
    """A checkpoint as the command was told: TIER=FOLDER, or a folder whose tier is to be found out."""

    folder: Path
    tier: str = ""

    @classmethod
    def read(cls, text: str) -> CheckpointArg:
        """Read an argument; what stands before '=' is a folder's if it has a slash: ./a=b."""
        tier, equals, folder = text.partition("=")
        return cls(Path(folder), tier) if equals and "/" not in tier else cls(Path(text))


def find_candidates(given: Sequence[CheckpointArg], model: ModelSettings, vllm: VllmSettings) -> list[Candidate]:
    """Return the checkpoints, each once, with the settings of their tiers.

    Raises:
        InputError: a folder is no checkpoint, or two have the same name.

    """
    told: dict[Path, str] = {}
    for one in given:
        folder = one.folder.expanduser().resolve()
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise InputError(f"{str(folder)!r} is no checkpoint: expected config.json and *.safetensors in it")
        if one.tier and told.get(folder, one.tier) not in ("", one.tier):
            raise InputError(f"{str(folder)!r} must be one tier, got {told[folder]} and {one.tier}")
        told[folder] = one.tier or told.get(folder, "")
    served = {folder: _served(folder, model, vllm) for folder in told}
    names = _names(told, served)
    for name in names.values():
        if len(same := [str(folder) for folder in names if names[folder] == name]) > 1:
            raise InputError(f"{' and '.join(same)} would both be called {name!r}: name one as TIER=FOLDER")
    return [
        Candidate(folder, _settings(name, folder, model, served[folder]), checkpoint_digest(folder))
        for folder, name in names.items()
    ]


def _served(folder: Path, model: ModelSettings, vllm: VllmSettings) -> TierSettings | None:
    """Return the tier whose checkpoint this folder is."""
    for tier in model.tiers:
        try:
            if tier.checkpoint and checkpoint_path(tier, vllm).resolve() == folder:
                return tier
        except EngineFaultError:  # this tier's folder is not there
            continue
    return None


def _names(told: Mapping[Path, str], served: Mapping[Path, TierSettings | None]) -> dict[Path, str]:
    """Return how each is called: as told, as the tier that serves it, as the tier it was made for, or as its folder.

    Several may have been made for one tier, and nobody can tell then which of them it is to be: they keep the names of
    their folders.
    """
    named = set(told.values())
    sure: dict[Path, str] = {}
    for folder, name in told.items():
        its = served[folder]
        sure[folder] = name or (its.name if its and its.name not in named else "")
    made = {folder: "" if sure[folder] else _made_for(folder) for folder in told}
    names = {}
    for folder in told:
        others = {name for other in told if other != folder for name in _claims(other, sure, made)}
        names[folder] = sure[folder] or (made[folder] if made[folder] not in others else "") or folder.name
    return names


def _claims(folder: Path, sure: Mapping[Path, str], made: Mapping[Path, str]) -> tuple[str, ...]:
    return (sure[folder],) if sure[folder] else (made[folder], folder.name)


def _made_for(folder: Path) -> str:
    """Return the tier of the recipe that made a checkpoint, or '' for one that is not of `calibrate quantize`."""
    manifest = read_manifest(folder)
    return manifest.tier if manifest else ""


def _settings(name: str, folder: Path, model: ModelSettings, served: TierSettings | None) -> TierSettings:
    """Return the settings of the tier of this name with this checkpoint: once published, it is served with them."""
    try:
        own = TierSettings(name=name, checkpoint=str(folder))
    except ValidationError as error:
        raise InputError(f"{name!r} cannot name a tier, expected a-z, 0-9, '.', '_', '-': use TIER={folder}") from error
    base = next((tier for tier in model.tiers if tier.name == name), served)
    return own if base is None else base.model_copy(update={"name": name, "checkpoint": str(folder)})
