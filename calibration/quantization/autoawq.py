"""Make checkpoints with AutoAWQ, the predecessor of llm-compressor's AWQ. The only file that imports it.

It is no longer maintained: this file also keeps it from spoiling weights on a CPU, and measures what it wrote without
its help, because transformers reads its layout no more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from calibration.errors import RecipeError
from calibration.quantization.judging.heldout_groups import Heldout
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.judging.measurer import Measurer
from calibration.quantization.loading import copy_tokenizer, load_model, load_tokenizer, quiet
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.quantizer import QuantizeSpec
from calibration.quantization.recipe import NumberFormat, Storage
from calibration.quantization.texts.token_budget import CalibrationTokens
from calibration.quantization.texts.token_ids import calibration_tokens
from calibration.terminal.progress import Advance

with quiet():  # it prints that it is deprecated, in spite of warning filters
    from awq import AutoAWQForCausalLM
    from awq.quantize import quantizer
    from awq.quantize.quantizer import AwqQuantizer
    from awq.utils.packing_utils import dequantize_gemm

LIBRARIES = ("torch", "transformers", "autoawq", "safetensors")
BITS = 4


class _CopyingQuantizer(AwqQuantizer):  # type: ignore[misc]  # AutoAWQ has no types
    """Keeps copies of the weights that it tries scales on.

    AutoAWQ puts them aside with `.cpu()`, which on a CPU is the very same memory: after the first scale there is
    nothing to go back to, and what comes out is garbage.
    """

    def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module2inspect: Any, *rest: Any) -> Any:  # noqa: ANN401
        original = module2inspect.state_dict
        module2inspect.state_dict = lambda: {name: value.clone() for name, value in original().items()}
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest)
        finally:
            del module2inspect.state_dict  # the instance's, not the class's


class _AutoAwqQuantizer:
    """The Quantizer of AWQ checkpoints in AutoAWQ's own layout."""

    def __init__(self) -> None:
        self._measurer = Measurer(_loaded)

    def convert(self, source: Path, into: Path) -> None:
        raise RecipeError(f"{source.name} cannot be unpacked here: make bf16 first, `make checkpoints`")

    def quantize(self, spec: QuantizeSpec, into: Path, advance: Advance) -> CalibrationTokens | None:
        """Quantize the reference and store it packed or, by way of packed, rounded."""
        recipe, tokenizer = spec.recipe, load_tokenizer(spec.reference)
        tokens = calibration_tokens(recipe, tokenizer, samples=spec.samples, general=spec.texts)
        if recipe.weights is None or recipe.mix is None or tokens is None:
            raise RecipeError(f"recipe {recipe.name}: AutoAWQ needs a number format and samples")
        model = AutoAWQForCausalLM.from_pretrained(
            str(spec.reference), torch_dtype=torch.float32, device_map="cpu", trust_remote_code=False
        )
        with quiet(), patch.object(quantizer, "tqdm", partial(_counted, advance)):
            model.quantize(
                tokenizer,
                quant_config=_as_autoawq_config(recipe.weights),
                calib_data=tokens.rows,
                max_calib_samples=len(tokens.rows),
                max_calib_seq_len=recipe.mix.tokens,
                quantizer_cls=_CopyingQuantizer,
            )
        model.model.half()
        packed = into if spec.storage is Storage.PACKED else into / "packed"
        packed.mkdir(exist_ok=True)
        model.save_quantized(str(packed))
        copy_tokenizer(spec.reference, into)
        if spec.storage is Storage.ROUNDED:
            dequantized(packed).to(torch.bfloat16).save_pretrained(into)
            shutil.rmtree(packed)
        return tokens

    def measure(self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None) -> Mapping[str, Figures]:
        return self._measurer.measure(checkpoint, heldout, memory)

    def versions(self) -> Mapping[str, str]:
        return {name: metadata.version(name) for name in LIBRARIES}


def make_quantizer() -> _AutoAwqQuantizer:
    return _AutoAwqQuantizer()


def _counted(advance: Advance, blocks: Sequence[Any], **_: object) -> Iterator[Any]:
    """Stand in for AutoAWQ's own bar: yield its blocks of layers, and say how many are done."""
    for number, block in enumerate(blocks, 1):
        yield block
        advance(number, len(blocks))


def _as_autoawq_config(numbers: NumberFormat) -> dict[str, Any]:  # Any: AutoAWQ's own
    """Translate a number format into AutoAWQ's configuration."""
    if (numbers.num_bits, numbers.type, numbers.strategy) != (BITS, "int", "group"):
        raise RecipeError(f"AutoAWQ makes groups of {BITS}-bit integers only")
    return {
        "zero_point": not numbers.symmetric,
        "q_group_size": numbers.group_size,
        "w_bit": BITS,
        "version": "GEMM",
    }


@contextmanager
def _loaded(checkpoint: Path, _: OffloadLimit | None) -> Iterator[PreTrainedModel]:
    """Yield a model; transformers reads AutoAWQ's layout no more."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    yield dequantized(checkpoint) if "quantization_config" in config else load_model(checkpoint)


def dequantized(checkpoint: Path) -> PreTrainedModel:
    """Load a checkpoint and dequantize every packed layer."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    group_size = config["quantization_config"]["group_size"]
    stored = {name: value for file in checkpoint.glob("*.safetensors") for name, value in load_file(file).items()}
    weights = {}
    for name, value in stored.items():
        layer, _, part = name.rpartition(".")
        if part == "qweight":
            full = dequantize_gemm(value, stored[f"{layer}.qzeros"], stored[f"{layer}.scales"], BITS, group_size)
            weights[f"{layer}.weight"] = full.t().float()
        elif part not in ("qzeros", "scales"):
            weights[name] = value.float()
    model = AutoModelForCausalLM.from_config(_plain_config(checkpoint), dtype=torch.float32)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RecipeError(f"{checkpoint} is not whole: {[*missing, *unexpected][:3]}")
    model.tie_weights()
    return model.eval()


def _plain_config(checkpoint: Path) -> Any:  # noqa: ANN401  (transformers' own)
    """Return the model's configuration without its quantization_config."""
    config = AutoConfig.from_pretrained(checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config
