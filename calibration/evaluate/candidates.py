"""The checkpoints that are measured, each as the tier that it is or would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bitladder.settings.checkpoint_digest import checkpoint_digest
from bitladder.settings.hidden import hidden
from bitladder.settings.models_section import ModelSettings, TierSettings
from bitladder.settings.paths import in_cache
from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.manifest import read_manifest
from calibration.errors import InputError
from calibration.terminal.progress import now_and_then
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
        engine = {"version": version, "args": [*vllm.args, *self.tier.vllm_args], "env": vllm.environment}
        return {"checkpoint": self.digest, "engine": hidden(engine)}


@dataclass(frozen=True, slots=True)
class CheckpointArg:
    """A checkpoint on the command line: TIER=FOLDER, or a folder whose tier is to be found out."""

    folder: Path
    tier: str = ""

    @classmethod
    def read(cls, text: str) -> CheckpointArg:
        """Read an argument; a part before '=' that has a slash belongs to the folder: ./a=b."""
        tier, equals, folder = text.partition("=")
        return cls(Path(folder), tier) if equals and "/" not in tier else cls(Path(text))


def find_candidates(
    arguments: Sequence[CheckpointArg],
    model: ModelSettings,
    vllm: VllmSettings,
    say: Callable[[str], None] = lambda text: None,
) -> list[Candidate]:
    """Return the checkpoints, each once, with the settings of their tiers.

    Raises:
        InputError: a folder is no checkpoint, or two checkpoints have the same name.

    """
    tier_names: dict[Path, str] = {}
    for argument in arguments:
        folder = argument.folder.expanduser().resolve()
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise InputError(f"{str(folder)!r} is no checkpoint: expected config.json and *.safetensors in it")
        if argument.tier and tier_names.get(folder, argument.tier) not in ("", argument.tier):
            raise InputError(f"{str(folder)!r} must be one tier, got {tier_names[folder]} and {argument.tier}")
        tier_names[folder] = argument.tier or tier_names.get(folder, "")
    served = {folder: _served_tier(folder, model, vllm) for folder in tier_names}
    names = _choose_names(tier_names, served)
    for name in names.values():
        if len(same := [str(folder) for folder in names if names[folder] == name]) > 1:
            raise InputError(f"{' and '.join(same)} would both be called {name!r}: name one as TIER=FOLDER")
    return [
        Candidate(folder, _tier_settings(name, folder, model, served[folder]), _digest(name, folder, say))
        for folder, name in names.items()
    ]


def _digest(name: str, folder: Path, say: Callable[[str], None]) -> str:
    return checkpoint_digest(folder, on_read=now_and_then(say, f"{name}: taking its digest, MB", 10**6))


def find_served(
    candidates: Sequence[Candidate], model: ModelSettings, vllm: VllmSettings, say: Callable[[str], None]
) -> dict[str, Candidate]:
    """Return what the tiers serve that these checkpoints would replace, by the names of those.

    Raises:
        InputError: one of the checkpoints has the name under which it is reported.

    """
    served = {}
    for candidate in candidates:
        tier = next((tier for tier in model.tiers if tier.name == candidate.name and tier.checkpoint), None)
        if tier is None:
            continue
        folder = in_cache(tier.checkpoint, vllm.cache_dir).resolve()
        if folder == candidate.path or not (folder / "config.json").is_file():
            continue
        name, digest = f"{tier.name}-served", _digest(f"{tier.name}-served", folder, say)
        if name in [other.name for other in candidates]:
            raise InputError(f"{name!r} is what tier {tier.name} serves: name {candidate.path} as TIER=FOLDER")
        if tier.published and tier.published.digest != digest:
            say(f"{name}: not measured: {folder} has changed since it was published")
        elif digest != candidate.digest:
            tier = tier.model_copy(update=_measured_as(name, folder))
            served[candidate.name] = Candidate(folder, tier, digest)
    return served


def _served_tier(folder: Path, model: ModelSettings, vllm: VllmSettings) -> TierSettings | None:
    """Return the tier whose checkpoint this folder is."""
    for tier in model.tiers:
        try:
            if tier.checkpoint and checkpoint_path(tier, vllm).resolve() == folder:
                return tier
        except EngineFaultError:  # the folder of this tier does not exist
            continue
    return None


def _choose_names(tier_names: Mapping[Path, str], served: Mapping[Path, TierSettings | None]) -> dict[Path, str]:
    """Return a name for each folder: that of the argument, the served tier, the recipe's tier or the folder.

    Several folders may have been made for one tier: then each keeps its folder's name.
    """
    named = set(tier_names.values())
    certain: dict[Path, str] = {}
    for folder, name in tier_names.items():
        tier = served[folder]
        certain[folder] = name or (tier.name if tier and tier.name not in named else "")
    made_for = {folder: "" if certain[folder] else _recipe_tier(folder) for folder in tier_names}
    names = {}
    for folder in tier_names:
        taken = {name for other in tier_names if other != folder for name in _claimed_names(other, certain, made_for)}
        tier_name = made_for[folder] if made_for[folder] not in taken else ""
        names[folder] = certain[folder] or tier_name or folder.name
    return names


def _claimed_names(folder: Path, certain: Mapping[Path, str], made_for: Mapping[Path, str]) -> tuple[str, ...]:
    return (certain[folder],) if certain[folder] else (made_for[folder], folder.name)


def _recipe_tier(folder: Path) -> str:
    """Return the tier of the recipe that made a checkpoint; '' for one that `calibrate quantize` did not make."""
    manifest = read_manifest(folder)
    return manifest.tier if manifest else ""


def _tier_settings(name: str, folder: Path, model: ModelSettings, served: TierSettings | None) -> TierSettings:
    """Return the settings of the tier of this name with this checkpoint: those it is served with once published."""
    try:
        tier_settings = TierSettings(name=name, checkpoint=str(folder))
    except ValidationError as error:
        raise InputError(f"{name!r} cannot name a tier, expected a-z, 0-9, '.', '_', '-': use TIER={folder}") from error
    base = next((tier for tier in model.tiers if tier.name == name), served)
    return tier_settings if base is None else base.model_copy(update=_measured_as(name, folder))


def _measured_as(name: str, folder: Path) -> dict[str, Any]:
    """Return what of a tier's settings is another one's here; what its release says of it is of another checkpoint."""
    return {"name": name, "checkpoint": str(folder), "published": None}
