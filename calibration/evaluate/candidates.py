"""The checkpoints that are measured, each as the tier that it is or would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibration.digest import checkpoint_digest
from calibration.errors import InputError
from dispatcher.errors import EngineFaultError
from dispatcher.sections import ModelSettings, TierSettings, VllmSettings
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


def find_candidates(paths: Sequence[Path], model: ModelSettings, vllm: VllmSettings) -> list[Candidate]:
    """Return the checkpoints, each once: one that a tier serves is that tier, any other is named by its folder.

    Raises:
        InputError: a folder is no checkpoint, or two have the same name.

    """
    folders = list(dict.fromkeys(path.expanduser().resolve() for path in paths))
    for folder in folders:
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise InputError(f"{str(folder)!r} is no checkpoint: expected config.json and *.safetensors in it")
    tiers = [_tier(folder, model, vllm) for folder in folders]
    names = [tier.name for tier in tiers]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"checkpoints must have different names, got {repeated[0]!r} twice: rename a folder")
    pairs = zip(folders, tiers, strict=True)
    return [Candidate(folder, tier, checkpoint_digest(folder)) for folder, tier in pairs]


def _tier(folder: Path, model: ModelSettings, vllm: VllmSettings) -> TierSettings:
    for tier in model.tiers:
        try:
            if checkpoint_path(tier, vllm).resolve() == folder:
                return tier
        except EngineFaultError:  # this tier's folder is not there
            continue
    try:
        return TierSettings(name=folder.name, checkpoint=str(folder))
    except ValidationError as error:
        raise InputError(f"{folder.name!r} cannot name a tier: rename the folder {str(folder)!r}") from error
