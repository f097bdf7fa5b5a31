"""Whether a GPU computes with a checkpoint's numbers: its compute capability against the kernels of vLLM 0.32.

FP8 for weights and activations (W8A8) needs units that GPUs have since 8.9. On older ones vLLM loads the same
checkpoint weight-only (W8A16, by Marlin): what is served is then not what was measured, and such setups have answered
nonsense at full speed. A checkpoint that is weight-only by itself is another matter: Marlin runs it from 7.5 on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from workers.engines.errors import EngineFaultError
from workers.engines.hardware.arguments import value_of
from workers.engines.hardware.nvidia import Gpu

# GPUs that tiers name, and what they can do (NVIDIA's compute capability).
CAPABILITY = {"T4": 75, "V100": 70, "A100": 80, "A10": 86, "A10G": 86, "A40": 86, "A6000": 86}
CAPABILITY |= {"L4": 89, "L40": 89, "L40S": 89, "RTX4090": 89, "H100": 90, "H200": 90, "B200": 100}
_MAX_CONFIG_BYTES = 16_000_000


class Arithmetic(StrEnum):
    """What a layer is computed with."""

    W4A16 = "W4A16"  # INT4 weights, by Marlin
    W8A16 = "W8A16"  # 8-bit weights of either kind, by Marlin
    INT8 = "INT8 W8A8"
    FP8 = "FP8 W8A8"


# From the first capability on, and below the second one.
RANGES = {
    Arithmetic.W4A16: (75, 10_000),
    Arithmetic.W8A16: (75, 10_000),
    Arithmetic.INT8: (75, 100),  # Blackwell has no such kernel
    Arithmetic.FP8: (89, 10_000),
}
_FP8_BELOW = (
    "vLLM would load its weights only (W8A16), which is not what was measured, and FP8 on such GPUs has answered "
    "nonsense at full speed"
)


def read_config(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's configuration.

    Raises:
        EngineFaultError: there is none.

    """
    file = folder / "config.json"
    try:
        with file.open("rb") as opened:
            config = json.loads(opened.read(_MAX_CONFIG_BYTES + 1))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineFaultError(f"{str(file)!r} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise EngineFaultError(f"{str(file)!r} must be an object, got {type(config).__name__}")
    return config


def numbers_of(config: Mapping[str, Any]) -> frozenset[Arithmetic]:
    """Return what a checkpoint's quantized layers are computed with; none: it is not quantized, or by other means."""
    text = config.get("text_config")
    inner = text.get("quantization_config") if isinstance(text, dict) else None
    quantization = config.get("quantization_config") or inner or config.get("compression_config")
    if not isinstance(quantization, dict):
        return frozenset()
    method, groups = str(quantization.get("quant_method")).lower(), quantization.get("config_groups")
    if isinstance(groups, dict):
        pairs = [
            (group.get("weights"), group.get("input_activations"))
            for group in groups.values()
            if isinstance(group, dict)
        ]
        return frozenset(kind for weights, inputs in pairs if (kind := _kind(weights, inputs)))
    if method in ("awq", "gptq"):
        bits = quantization.get("bits", quantization.get("w_bit", 4))
        return frozenset({Arithmetic.W4A16 if bits == 4 else Arithmetic.W8A16})
    is_fp8 = method == "fp8" or "FP8" in str(quantization.get("quant_algo")).upper()
    return frozenset({Arithmetic.FP8}) if is_fp8 else frozenset()


def misfit(numbers: Iterable[Arithmetic], capability: int, gpu: str) -> str:
    """Return why a GPU does not compute with these numbers; '' where it does."""
    for kind in sorted(numbers):
        lowest, end = RANGES[kind]
        if lowest <= capability < end:
            continue
        needs = f"at least {_shown(lowest)}" if capability < lowest else f"less than {_shown(end)}"
        why = f": {_FP8_BELOW}" if kind is Arithmetic.FP8 else ": vLLM has no kernel for it there"
        return f"{gpu} has compute capability {_shown(capability)}, {kind} needs {needs}{why}"
    return ""


def misfit_of(numbers: Iterable[Arithmetic], gpus: Sequence[Gpu], args: Sequence[str]) -> str:
    """Return the same of the GPUs that one server uses: as many as its tensors are spread over."""
    numbers, spread = frozenset(numbers), value_of(args, "--tensor-parallel-size", "-tp") or ""
    count = int(spread) if spread.isdigit() else 1
    return next((problem for gpu in gpus[:count] if (problem := misfit(numbers, gpu.capability, gpu.name))), "")


def capability_of(hardware: str) -> int | None:
    """Return the compute capability of a GPU by any of its names: A10G, NVIDIA A10G, A100-80GB, RTX 4090."""
    words = re.findall("[A-Z0-9]+", hardware.upper())
    names = [*words, *map("".join, pairwise(words))]
    return next((CAPABILITY[name] for name in names if name in CAPABILITY), None)


def _kind(weights: object, inputs: object) -> Arithmetic | None:
    if not isinstance(weights, dict):
        return None
    numbers = f"{weights.get('type', 'int')} {weights.get('num_bits')}"
    if not isinstance(inputs, dict):
        return {"int 4": Arithmetic.W4A16, "int 8": Arithmetic.W8A16, "float 8": Arithmetic.W8A16}.get(numbers)
    is_same = numbers == f"{inputs.get('type', 'int')} {inputs.get('num_bits')}"
    return {"int 8": Arithmetic.INT8, "float 8": Arithmetic.FP8}.get(numbers) if is_same else None


def _shown(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"
