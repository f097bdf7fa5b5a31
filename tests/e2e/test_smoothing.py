"""calibration/quantization/smoothing.py, where llm-compressor is: outliers move, nothing else changes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.vllm
PYTHON = ROOT / ".venv-quantize" / "bin" / "python"
PROBE = """
import json, sys, torch
from llmcompressor import oneshot
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from calibration.quantization.smoothing import smoothing

torch.manual_seed(3)
widths = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2)
made = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **widths))
made.model.layers[1].mlp.up_proj.weight.data[7] *= 100
made.save_pretrained(sys.argv[1])  # oneshot looks for the folder that a model came from
model = LlamaForCausalLM.from_pretrained(sys.argv[1]).eval()
ids = torch.randint(0, 64, (1, 24))

def look():
    seen = []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        logits = model(ids).logits
    hook.remove()
    channels = seen[0].abs().amax((0, 1))
    return logits, float(channels[7] / channels.median())

before, outlier = look()
batches = DataLoader([{"input_ids": torch.randint(0, 64, (1, 24))} for _ in range(8)], batch_size=None)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0})))  # asked for, and not used
recipe = smoothing(model, behind_norms=0.8, gated=0.65)
oneshot(model=model, processor=tokenizer, recipe=recipe, dataset=batches, num_calibration_samples=8)
after, smoothed = look()
print(json.dumps({
    "difference": float((after - before).abs().max() / before.abs().max()),
    "outlier": outlier,
    "smoothed": smoothed,
    "norm": float(model.model.layers[1].input_layernorm.weight.std()),
}))
"""


def test_outliers_of_a_gated_mlp_go_into_its_weights_and_the_model_says_the_same(tmp_path: Path) -> None:
    if not PYTHON.exists():
        message = "there is no quantizer: `make quantize-env` sets it up"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [str(PYTHON), "-c", PROBE, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-4
    assert found["outlier"] > 50
    assert found["smoothed"] < found["outlier"] / 10
    assert found["norm"] > 0  # ones before
