"""Run by the engine's Python: what vLLM itself makes of configurations, module by module; knows nothing of ours.

stdin: a list of {"config": quantization_config, "architecture": name, "modules": [[name, class], ...]}.
stdout: for each "refused", or a list with, for each module, "refused", null (as it is), or how its weights are stored.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers import linear, vocab_parallel_embedding
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig, AutoAWQMarlinLinearMethod
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig,
    CompressedTensorsKVCacheMethod,
)
from vllm.model_executor.model_loader.utils import configure_quant_config
from vllm.model_executor.models.registry import ModelRegistry


def module(kind: str) -> Any:  # noqa: ANN401  (a class of vLLM's)
    """Return a module of a class without its weights."""
    cls = getattr(linear, kind, None) or getattr(vocab_parallel_embedding, kind)
    made = cls.__new__(cls)
    torch.nn.Module.__init__(made)
    return made


def stored(config: Any, kind: str, name: str) -> Any:  # noqa: ANN401  (JSON)
    layer = module(kind)
    method = config.get_quant_method(layer, name)
    if isinstance(config, AutoAWQConfig):
        return ["awq", 4, "group", False, config.group_size] if isinstance(method, AutoAWQMarlinLinearMethod) else None
    if "Unquantized" in type(method).__name__ or method is None:
        return None
    its = config.get_scheme_dict(layer, name)
    weights = its["weights"]
    return [its["format"], weights.num_bits, weights.strategy, weights.symmetric, weights.group_size]


def answers(case: dict[str, Any]) -> Any:  # noqa: ANN401  (JSON)
    cls = AutoAWQConfig if case["config"]["quant_method"] == "awq" else CompressedTensorsConfig
    try:
        config = cls.from_config(case["config"])
        CompressedTensorsKVCacheMethod.validate_kv_cache_scheme(getattr(config, "kv_cache_scheme", None))
        model = ModelRegistry._try_load_model_cls(case["architecture"])
        mapper = getattr(model, "hf_to_vllm_mapper", None)
        if mapper is not None:
            config.apply_vllm_mapper(mapper.get_rename_mapper())
        configure_quant_config(config, model)
        config.packed_modules_mapping = model.packed_modules_mapping
    except Exception:
        return "refused"
    return [answer(config, name, kind) for name, kind in case["modules"]]


def answer(config: Any, name: str, kind: str) -> Any:  # noqa: ANN401  (JSON)
    try:
        return stored(config, kind, name)
    except Exception as error:
        print(f"{name}: {error!r:.300}", file=sys.stderr)  # noqa: T201  (for whoever looks into a difference)
        return "refused"


def main() -> None:
    context = VllmConfig()
    # What kernels ask of a model when they are chosen.
    object.__setattr__(context, "model_config", SimpleNamespace(dtype=torch.bfloat16))
    with set_current_vllm_config(context):
        json.dump([answers(case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
