"""Run by the engine's Python: whether vLLM itself builds and loads checkpoints; knows nothing of ours.

Arguments: a free port, and folders. stdout: folder -> "loaded", "no kernel" (on this hardware), or why it was refused.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model_loader
from vllm.utils.torch_utils import set_default_torch_dtype


def load(config: Any) -> None:  # noqa: ANN401  (VllmConfig)
    loader = get_model_loader(config.load_config)
    with set_default_torch_dtype(config.model_config.dtype):
        model = loader.create_model(vllm_config=config, model_config=config.model_config)
        loader.load_weights(model, config.model_config)


def outcome(folder: str, port: str) -> str:
    try:
        arguments = EngineArgs(model=folder, enforce_eager=True, max_model_len=64, skip_tokenizer_init=True)
        config = arguments.create_engine_config()
        with set_current_vllm_config(config):
            if not torch.distributed.is_initialized():
                init_distributed_environment(1, 0, f"tcp://127.0.0.1:{port}", 0, "gloo")
                initialize_model_parallel(1, 1)
            load(config)
    except Exception as error:
        return "no kernel" if "Failed to find a kernel" in str(error) else f"{error!r:.300}"
    return "loaded"


if __name__ == "__main__":
    port, *folders = sys.argv[1:]
    # Only the last line is read: the engine prints as well.
    print("\n" + json.dumps({folder: outcome(folder, port) for folder in folders}))  # noqa: T201
