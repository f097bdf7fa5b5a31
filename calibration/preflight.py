"""Check that a recipe can be carried out on a model, before hours are spent. Reads headers, never weights."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.errors import DiskFullError, RecipeError
from calibration.inspection.files import read_tensors
from calibration.inspection.json_text import parse_json
from calibration.inspection.quantization import find_quantization
from calibration.inspection.scheme import SchemeError
from calibration.inspection.tensor_file import WIDE_FLOATS, Tensor
from calibration.inspection.verdict import Findings, Verdict
from calibration.quantization.estimate import Weights, answers_bytes, checkpoint_bytes, disk_bytes, memory_bytes
from calibration.quantization.judging.heldout_groups import GROUP_TOKENS
from calibration.quantization.recipe import Recipe, Storage, Toolkit, check_fits
from calibration.sample.heldout_kinds import MAX_KINDS
from calibration.texts.packaged import KINDS
from workers.engines.hardware.gpu_fit import CAPABILITY, capability_of

# Two-dimensional and not multiplied with: looked up, or kept as it is by every recipe.
_NEVER_QUANTIZED = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "wpe.weight")
_QUANTIZED = "is quantized already; recipes start from bf16, fp16 or float32"
_MIN_CAPABILITY = {("int", 4): 75, ("int", 8): 75, ("float", 8): 89}
# Own kinds, what is left of them, and the packaged kinds.
_MOST_HELDOUT = GROUP_TOKENS * (MAX_KINDS + 1 + len(KINDS))
# Marlin, which runs W4A16 on GPUs, and CPUWNA16LinearKernel take these.
_GROUPS = (32, 64, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceNeeds:
    """What a run will take, as far as that is known before it starts."""

    weights: Weights
    checkpoint_bytes: int
    disk_bytes: int
    memory_bytes: int


def inspect_model(folder: Path) -> Weights:
    """Return the sizes of a model's layers.

    Raises:
        RecipeError: the folder holds no whole model of safetensors.

    """
    config = _read_config(folder)
    _refuse_quantized(folder, config)
    findings = Findings()
    tensors = read_tensors(folder, findings)
    if findings.worst() is Verdict.FAIL:
        faults = "; ".join(text for check in findings.checks() if check.verdict is Verdict.FAIL for text in check.texts)
        raise RecipeError(f"{folder} cannot be quantized: {faults}")
    for tensor in tensors.values():
        if tensor.dtype not in WIDE_FLOATS and _is_of_layer(tensor):
            raise RecipeError(f"{folder} {_QUANTIZED}: {tensor.name} is stored as {tensor.dtype}")
    linears = tuple(_size(tensor) for tensor in tensors.values() if _is_linear(tensor))
    if not linears:
        raise RecipeError(f"{folder} has no linear layers to quantize")
    return Weights(
        linears=linears,
        others=sum(tensor.size for tensor in tensors.values() if not _is_linear(tensor)),
        hidden=_positive(config, "hidden_size"),
        vocabulary=_positive(config, "vocab_size"),
        blocks=_positive(config, "num_hidden_layers"),
    )


def check_hardware(recipe: Recipe, hardware: str) -> None:
    """Raise RecipeError if the tier's GPU has no units for the recipe's numbers; names that are not known pass."""
    numbers, capability = recipe.weights, capability_of(hardware)
    if numbers is None or capability is None:
        return
    needed = _MIN_CAPABILITY[numbers.type, numbers.num_bits]
    if capability < needed:
        fitting = ", ".join(name for name, available in CAPABILITY.items() if available >= needed)
        raise RecipeError(
            f"recipe {recipe.name}: {hardware} has no units for {numbers.num_bits}-bit {numbers.type} "
            f"(compute capability {capability / 10}, at least {needed / 10} is needed); tier {recipe.tier} runs on "
            f"{fitting}"
        )


def check_kernels(recipe: Recipe, weights: Weights) -> None:
    """Raise RecipeError if no kernel that serves takes the recipe's groups on these widths."""
    check_fits(recipe, weights.shape)
    numbers = recipe.weights
    if numbers is None or numbers.num_bits != 4:
        return
    if numbers.group_size not in _GROUPS:
        raise RecipeError(f"recipe {recipe.name}: kernels take groups of {_GROUPS}, got {numbers.group_size}")
    if recipe.toolkit is Toolkit.AUTOAWQ and (odd := [width for width in weights.shape.output_widths if width % 64]):
        raise RecipeError(f"recipe {recipe.name}: AutoAWQ clips 64 outputs at once, which do not divide {odd}")
    crooked = sorted({width for size in weights.linears for width in size if width % 32})
    if crooked:
        raise RecipeError(
            f"recipe {recipe.name}: kernels of 4-bit weights take widths that are multiples of 32, the model has "
            f"{', '.join(map(str, crooked))}"
        )


def plan(recipe: Recipe, weights: Weights, *, memory: int | None) -> ResourceNeeds:
    """Return what the run takes."""
    tokens, sample = (recipe.mix.most_tokens, recipe.mix.tokens) if recipe.mix else (0, 0)
    return ResourceNeeds(
        weights=weights,
        checkpoint_bytes=checkpoint_bytes(recipe, weights),
        disk_bytes=disk_bytes(recipe, weights, Storage.PACKED, memory=memory) + answers_bytes(weights, _MOST_HELDOUT),
        memory_bytes=memory_bytes(recipe, weights, tokens=tokens, sample=sample, memory=memory),
    )


def check_room(needs: ResourceNeeds, cache: Path, available: int) -> None:
    """Raise if the run does not fit on the disk (DiskFullError) or into memory (RecipeError)."""
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needs.disk_bytes > free:
        raise DiskFullError(f"{_gb(needs.disk_bytes)} are needed in {cache}, {_gb(free)} are free")
    if needs.memory_bytes > available:
        raise RecipeError(
            f"up to {_gb(needs.memory_bytes)} of memory are needed, {_gb(available)} are available; --memory-gb keeps "
            "weights above so much on disk, and fewer or shorter samples take less"
        )


def _refuse_quantized(folder: Path, config: dict[str, Any]) -> None:  # Any: JSON
    try:
        quantization, where = find_quantization(folder, config)
    except SchemeError as error:
        raise RecipeError(f"{folder} cannot be quantized: {error}") from error
    if quantization is not None:
        raise RecipeError(f"{folder} {_QUANTIZED}: it has {where}")


def _read_config(folder: Path) -> dict[str, Any]:  # Any: JSON
    try:
        config = parse_json((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder} is no model: config.json cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise RecipeError(f"{folder} is no model: config.json must be an object")
    return config


def _positive(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise RecipeError(f"config.json: {name} must be 1 or more, got {value!r}")
    return value


def _is_linear(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and tensor.name.endswith(".weight") and not tensor.name.endswith(_NEVER_QUANTIZED)


def _is_of_layer(tensor: Tensor) -> bool:
    """Tell whether its numbers are multiplied with; old checkpoints carry masks and positions, too."""
    return tensor.name.endswith((".weight", ".weight_packed", ".qweight"))


def _size(tensor: Tensor) -> tuple[int, int]:
    outputs, inputs = tensor.shape
    return outputs, inputs


def _gb(count: int) -> str:
    return f"{math.ceil(count / 1e7) / 100:.2f} GB"
