"""A model that quantizer and engine take like any other, and in seconds: two layers that stammer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from calibration.environment import example_folder
from tests.calibration.inspection.tiny import HIDDEN, Tiny, bf16
from tests.conftest import ROOT

REFERENCE = example_folder() / "bf16"


def require(*environments: str) -> None:
    """Skip the test, or fail it in CI, unless these environments and the example's tokenizer are there."""
    missing = [name for name in environments if not (ROOT / name / "bin" / "python").exists()]
    if missing or not REFERENCE.exists():
        message = f"no {', '.join(missing) or REFERENCE}: `make engine-env checkpoints` makes what is missing"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def write_small_model(folder: Path) -> Path:
    """Write a model of random weights with the example's own vocabulary and template, and heads that vLLM takes."""
    words = json.loads((REFERENCE / "config.json").read_bytes())["vocab_size"]
    tiny, random = Tiny(), np.random.default_rng(5)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    tiny.config |= heads | {"vocab_size": words, "max_position_embeddings": 1024}
    tiny.tensors["model.embed_tokens.weight"] = bf16(random.normal(0, 0.1, (words, HIDDEN)))
    for name in [name for name in tiny.tensors if name.endswith(("k_proj.weight", "v_proj.weight"))]:
        tiny.tensors[name] = bf16(random.normal(0, 0.05, (HIDDEN, HIDDEN)))
    tiny.write(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(REFERENCE / name, folder / name)
    return folder
