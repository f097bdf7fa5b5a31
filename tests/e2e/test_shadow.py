"""A shadow beside real vLLM: a dozen captured prompts of int4, held against int8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from bitladder.cli.private_stack import private_stack
from calibration.control.losses import read_labels
from tests.conftest import ROOT, wait_until

pytestmark = pytest.mark.vllm
CONFIG = """
[vllm]
python = "{python}"
args = ["--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "8"]
[vllm.env]
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
[capture]
share = 1
folder = "{folder}/capture"
[[models.smollm2.tiers]]
name = "int4"
price_per_hour = 0.70
checkpoint = "{{cache}}/smollm2/int4"
[[models.smollm2.tiers]]
name = "int8"
price_per_hour = 1.00
checkpoint = "{{cache}}/smollm2/int8"
"""
PROMPTS = (
    "Why is the sky blue?",
    "Write a short poem about rain.",
    "def add(first, second):",
    '{"name": "Ada", "born": 1815}',
    "Wie heißt die Hauptstadt von Frankreich?",
    "SELECT name FROM customers WHERE",
)


def test_prompts_that_int4_served_are_held_against_int8(tmp_path: Path) -> None:
    python = ROOT / ".venv-engine" / "bin" / "python"
    if not python.exists():
        message = "there is no .venv-engine: `make engine-env checkpoints` makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    config = tmp_path / "bitladder.toml"
    config.write_text(CONFIG.format(python=python, folder=tmp_path), encoding="utf-8")
    with private_stack(str(config), {"worker.engine": "vllm"}) as stack:
        stack.wait_until_live(400, lambda _: None)
        with httpx2.Client(base_url=stack.url, timeout=120) as http:
            for prompt in PROMPTS:
                completion = {"model": "smollm2", "prompt": prompt, "max_tokens": 8}
                http.post("/v1/completions", json=completion, headers={"X-Max-Latency-Ms": "500"}).raise_for_status()
                chat = {"model": "smollm2", "messages": [{"role": "user", "content": prompt}], "max_tokens": 8}
                http.post("/v1/chat/completions", json=chat, headers={"X-Max-Tier": "int4"}).raise_for_status()
        wait_until(lambda: _served(tmp_path) == 2 * len(PROMPTS), "what was served is captured")
        options = ("--out", str(tmp_path / "shadow"), "--share", "1", "--answer-tokens", "24", "--max-wait", "60s")
        done = subprocess.run(
            [sys.executable, "-m", "calibration", "shadow", "--url", stack.url, "--json", *options],
            cwd=ROOT,
            env=os.environ | {"BITLADDER_CONFIG": str(config)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    lines = [json.loads(line) for line in (tmp_path / "shadow" / "labels.jsonl").read_text().splitlines()]
    low = [line for line in lines if line["served_by"] == "int4"]
    assert figures["prompts"]["labelled"] == 2 * len(PROMPTS)
    assert len(low) >= len(PROMPTS)
    assert {line["form"] for line in low} >= {"chat"}
    assert all(0 < line["tiers"]["int4"]["answer"]["kl"] < 5 for line in low)
    assert figures["usage"]["today"]["cost"] > 0
    labels, _ = read_labels(tmp_path / "shadow" / "labels.jsonl", ("int4", "int8"), "answer.kl")
    assert 0.01 < labels.losses["int4"].mean() < 1


def _served(folder: Path) -> int:
    return sum(path.read_text().count('"served"') for path in (folder / "capture").glob("*.jsonl"))
