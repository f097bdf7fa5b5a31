"""How many bytes of disk and memory, and how long, a recipe will take. Pure; explained in docs/calibration/quantize.md.

All bytes are an upper bound of what was measured, not a prediction: a run that is refused for a gigabyte can be given
fewer or shorter samples, one that dies after hours cannot. Times are predictions.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from calibration.quantization.recipe import USES_AWQ, USES_GPTQ, Method, NumberFormat, Recipe, Shape, Storage

# Python, torch, transformers and the quantizer, and what they free but do not give back.
_RUNTIME_BYTES = 1_200_000_000
_BF16_BYTES, _FLOAT_BYTES = 2, 4
_BF16 = NumberFormat(num_bits=16, type="float", strategy="tensor")
# Bounds a file of weights that is written where memory is bounded; transformers gathers a whole one before.
SHARD_BYTES = 5_000_000_000
# Twice the longest passage: what the model answers, and what its reference answered.
_MEASURED_TOKENS = 512
# A layer's weights while they are worked on: before and after, and what the conversion itself takes.
_COPIES_OF_A_LAYER = 3
# GPTQ inverts the matrix of a layer out of place, twice.
_COPIES_OF_A_MATRIX = 3
# Of each sample: input and output of the layer, once more quantized, and the rotations of the attention.
_COPIES_OF_ACTIVATIONS = 4
# CPU seconds for a billion parameters and a thousand calibration tokens: docs/calibration/figures.md, less what loading
# and measuring took.
_PASS_S = 40.0  # a recipe that only looks at what goes through the layers
_METHOD_S = {Method.GPTQ: 90.0, Method.AWQ: 160.0, Method.AWQ_GPTQ: 400.0, Method.SMOOTHQUANT_GPTQ: 150.0}
_ONE_PASS = 0.6  # of that where nothing goes through the quantized layers again
# For a billion parameters, whatever is calibrated on: rounding and writing; and reading two models for each 768 tokens.
_ROUNDING_S, _MEASURING_S = 60.0, 35.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The sizes of a model's weights."""

    linears: tuple[tuple[int, int], ...]  # outputs, inputs of each layer that is quantized
    others: int  # parameters that stay bf16
    hidden: int
    vocabulary: int
    blocks: int  # equal stacks of linear layers, one in memory at a time

    @property
    def parameters(self) -> int:
        return self.others + sum(outputs * inputs for outputs, inputs in self.linears)

    @property
    def shape(self) -> Shape:
        return Shape(
            input_widths=tuple(sorted({inputs for _, inputs in self.linears})),
            output_widths=tuple(sorted({outputs for outputs, _ in self.linears})),
        )


def llama_weights(
    *, hidden: int, inner: int, layers: int, heads: tuple[int, int], vocabulary: int, is_tied: bool
) -> Weights:
    """Return the sizes of a model of Llama's architecture; heads are those of queries and those of keys."""
    queries, keys_heads = heads
    keys = (keys_heads * hidden // queries, hidden)
    block = ((hidden, hidden), keys, keys, (hidden, hidden), (inner, hidden), (inner, hidden), (hidden, inner))
    return Weights(
        linears=block * layers,
        others=vocabulary * hidden * (1 if is_tied else 2) + hidden * (2 * layers + 1),
        hidden=hidden,
        vocabulary=vocabulary,
        blocks=layers,
    )


def checkpoint_bytes(recipe: Recipe, weights: Weights, storage: Storage = Storage.PACKED) -> int:
    """Return what the weights take on disk, scales and zero points included."""
    if storage is Storage.ROUNDED or recipe.weights is None:
        return weights.parameters * _BF16_BYTES
    # Which layers have other numbers, or stay bf16, only names say.
    formats = [numbers for numbers in (recipe.weights, recipe.finer_weights, _BF16 if recipe.kept else None) if numbers]
    linear = sum(
        count * max(_layer_bytes(numbers, *size) for numbers in formats)
        for size, count in Counter(weights.linears).items()
    )
    return weights.others * _BF16_BYTES + linear


def disk_bytes(recipe: Recipe, weights: Weights, storage: Storage, *, memory: int | None = None) -> int:
    """Return what must be free: the checkpoint, beside it what it is spelled out from, and weights kept off memory."""
    needed = checkpoint_bytes(recipe, weights, storage)
    if storage is Storage.ROUNDED:
        needed += checkpoint_bytes(recipe, weights)
    if memory is not None and weights.parameters * _BF16_BYTES > memory:
        needed += weights.parameters * _BF16_BYTES
    return needed


def answers_bytes(weights: Weights, tokens: int) -> int:
    """Return what the reference's answers to so many held-out tokens take on disk, while checkpoints are measured."""
    return tokens * weights.vocabulary * _BF16_BYTES


def memory_bytes(recipe: Recipe, weights: Weights, *, tokens: int, sample: int, memory: int | None = None) -> int:
    """Return the most memory that a run takes.

    tokens are those of all samples, sample those of the longest; with memory, weights above so many bytes stay on disk.
    """
    resident = weights.parameters * _FLOAT_BYTES
    # Beside the weights: while they are loaded what they are read from, and when they are measured the packed ones.
    beside = max(weights.parameters * _BF16_BYTES, checkpoint_bytes(recipe, weights))
    if memory is not None:
        resident = min(weights.parameters * _BF16_BYTES, memory)
        beside = min(weights.parameters * _BF16_BYTES, SHARD_BYTES)  # while they are written
    beside += 2 * _MEASURED_TOKENS * weights.vocabulary * _FLOAT_BYTES
    return _RUNTIME_BYTES + resident + max(beside, _work_bytes(recipe, weights, tokens=tokens, sample=sample))


def making_s(recipe: Recipe, weights: Weights) -> float:
    """Return how long quantizing takes one core, as it took the example: in proportion to parameters and tokens.

    Wider layers take GPTQ longer than that, a GPU takes less.
    """
    billions = weights.parameters / 1e9
    tokens = recipe.mix.budget if recipe.mix else 0
    passes = 1.0 if recipe.propagates else _ONE_PASS
    return billions * (_ROUNDING_S + passes * _METHOD_S.get(recipe.method, _PASS_S) * tokens / 1000)


def measuring_s(weights: Weights, groups: int) -> float:
    """Return how long it takes one core to measure a checkpoint and its reference on so many groups of texts."""
    return weights.parameters / 1e9 * _MEASURING_S * groups


def _work_bytes(recipe: Recipe, weights: Weights, *, tokens: int, sample: int) -> int:
    """Return what quantizing one block of layers takes beside the weights."""
    sizes = weights.linears[: max(1, len(weights.linears) // weights.blocks)]
    layer = sum(outputs * inputs for outputs, inputs in sizes) * _FLOAT_BYTES
    needed = _COPIES_OF_A_LAYER * layer
    if recipe.mix is None:
        return needed
    needed += _COPIES_OF_ACTIVATIONS * tokens * weights.hidden * _FLOAT_BYTES
    needed += 2 * sample * weights.vocabulary * _FLOAT_BYTES
    if recipe.method in USES_AWQ:
        needed += 2 * tokens * weights.hidden * _FLOAT_BYTES
    if recipe.method in USES_GPTQ:
        widths = [inputs for _, inputs in sizes]
        needed += (sum(width**2 for width in widths) + _COPIES_OF_A_MATRIX * max(widths) ** 2) * _FLOAT_BYTES
    return needed


def _layer_bytes(numbers: NumberFormat, outputs: int, inputs: int) -> int:
    scales = outputs * _BF16_BYTES
    if numbers.strategy == "group" and numbers.group_size:
        groups = math.ceil(inputs / numbers.group_size)
        scales = outputs * groups * _BF16_BYTES
        if not numbers.symmetric:
            scales += math.ceil(outputs / (32 // numbers.num_bits)) * 4 * groups
    if numbers.strategy == "block" and numbers.block_structure:
        rows, columns = numbers.block_structure
        scales = math.ceil(outputs / rows) * math.ceil(inputs / columns) * _FLOAT_BYTES
    return outputs * inputs * numbers.num_bits // 8 + scales
