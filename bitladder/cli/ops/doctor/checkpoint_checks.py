"""Checkpoints of this machine: there, readable, of the tier's precision, and what was published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, fail, in_bytes, ok, skipped, warn
from bitladder.settings.load import foreign_environment
from bitladder.settings.models_section import TierSettings
from bitladder.settings.paths import in_cache
from workers.engines.errors import EngineFaultError
from workers.engines.hardware.gpu_fit import Arithmetic, numbers_of, read_config
from workers.engines.hardware.nvidia import seen_gpus
from workers.engines.published import published_problem

# What a tier's name promises: numbers of which a checkpoint must have some; none: it must not be quantized.
_PROMISED: tuple[tuple[str, frozenset[Arithmetic]], ...] = (
    (r"(int|w)4", frozenset({Arithmetic.W4A16})),
    (r"(int8|w8a8)", frozenset({Arithmetic.INT8, Arithmetic.W8A16})),
    (r"fp8", frozenset({Arithmetic.FP8, Arithmetic.W8A16})),
    (r"(bf16|fp16|fp32|full)", frozenset()),
)


def check_checkpoints(examined: Examined) -> Iterator[Finding]:
    """Yield what is to be said of each tier's folder."""
    if examined.settings.worker.engine != "vllm":
        yield skipped("checkpoints.folder", "all tiers", f"worker.engine is {examined.settings.worker.engine!r}")
        return
    has_gpu = bool(seen_gpus(foreign_environment() | examined.settings.vllm.environment))
    for name, tier in examined.tiers():
        yield from _of_tier(examined, name, tier, has_gpu=has_gpu)


def folder_of(examined: Examined, tier: TierSettings) -> Path:
    """Return the folder of a tier's checkpoint."""
    return in_cache(tier.checkpoint, examined.settings.vllm.cache_dir)


def config_here(examined: Examined, tier: TierSettings) -> dict[str, Any] | None:
    """Return a checkpoint's configuration; None where it cannot be read, which the group checkpoints says."""
    try:
        return read_config(folder_of(examined, tier))
    except EngineFaultError:
        return None


def weight_bytes(folder: Path) -> int:
    """Return the size of a checkpoint's weights."""
    files = [path for kind in ("*.safetensors", "*.bin", "*.gguf") for path in folder.glob(kind)]
    return sum(path.stat().st_size for path in files)


def precision_problem(tier: str, config: dict[str, Any]) -> str:
    """Return how a checkpoint's numbers differ from what its tier's name promises; '' where they do not."""
    numbers = numbers_of(config)
    promised = _promises(tier)
    if not numbers or promised is None or numbers & promised:
        return ""
    return f"has {', '.join(sorted(numbers))}, the tier is called {tier}"


def _promises(tier: str) -> frozenset[Arithmetic] | None:
    """Return what the name of a tier promises; None: nothing."""
    return next((kinds for start, kinds in _PROMISED if re.match(start, tier, re.IGNORECASE)), None)


def _of_tier(examined: Examined, name: str, tier: TierSettings, *, has_gpu: bool) -> Iterator[Finding]:
    folder = folder_of(examined, tier)
    if not folder.is_dir():
        yield _missing(examined, name, tier, folder)
        return
    try:
        config = read_config(folder)
    except EngineFaultError as error:
        yield fail("checkpoints.config", name, str(error), "make or copy the checkpoint again (docs/calibration.md)")
        return
    size = weight_bytes(folder)
    if size:
        yield ok("checkpoints.folder", name, f"{folder}, {in_bytes(size)} of weights")
    else:
        yield fail("checkpoints.folder", name, f"{folder} has no weights", "make or copy the checkpoint again")
    yield judge_precision(name, tier.name, folder, config, has_gpu=has_gpu)
    yield _digest(examined, name, tier)


def judge_precision(name: str, tier: str, folder: Path, config: dict[str, Any], *, has_gpu: bool) -> Finding:
    """Hold a checkpoint's numbers against the name of its tier."""
    numbers, promised = numbers_of(config), _promises(tier)
    if problem := precision_problem(tier, config):
        cure = f"name the right folder in models.<model>.tiers.{tier}.checkpoint, or rename the tier"
        return fail("checkpoints.precision", name, f"{folder} {problem}", cure)
    if not numbers and promised and Arithmetic.FP8 in promised and not has_gpu:
        return ok(
            "checkpoints.precision", name, "not packed: there are no FP8 kernels for processors, it serves as bf16"
        )
    if not numbers and promised:
        text = f"{folder} is not stored in the precision that the tier is called by: it takes more memory"
        cure = "serve a packed checkpoint of it, if the machine has the kernels (docs/calibration/quantize.md)"
        return warn("checkpoints.precision", name, text, cure)
    return ok("checkpoints.precision", name, ", ".join(sorted(numbers)) or "not quantized, or by other means")


def _digest(examined: Examined, name: str, tier: TierSettings) -> Finding:
    if tier.published is None:
        return skipped("checkpoints.digest", name, "of no release: nothing says what it must be")
    if problem := published_problem(tier, examined.settings.vllm):
        return fail(
            "checkpoints.digest", name, problem, "put the published folder back, or bitladder calibrate rollback"
        )
    return ok("checkpoints.digest", name, f"what release {tier.published.version} says")


def _missing(examined: Examined, name: str, tier: TierSettings, folder: Path) -> Finding:
    text = f"{folder} is not on this machine"
    cure = "make it (docs/calibration.md) or copy it; `make checkpoints` makes those of the example ladder"
    if examined.tier:
        return fail("checkpoints.folder", name, text, cure)
    if examined.role is Role.WORKER:
        return warn("checkpoints.folder", name, f"{text}: no worker of {tier.name} can start here", cure)
    return skipped("checkpoints.folder", name, text)
