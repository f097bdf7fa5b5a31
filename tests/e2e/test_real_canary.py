"""A canary of real checkpoints on real vLLM: a planted bad one loses its share, a good one gets everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from bitladder.cli.private_stack import PrivateStack, private_stack
from calibration.environment import example_folder
from tests.conftest import ROOT, wait_until
from tests.e2e.planted_checkpoint import plant
from tests.e2e.small_model import require

pytestmark = pytest.mark.vllm
CONFIG = """
[vllm]
python = "{python}"
args = ["--max-model-len", "256", "--enforce-eager", "--max-num-seqs", "8"]
[vllm.env]
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
"""
MODEL = """
[models.{name}]
[[models.{name}.tiers]]
name = "int8"
price_per_hour = 1.0
checkpoint = "{checkpoint}"
"""
TOPICS = (
    "rain tea iron bread moss salt glass wool rivers bees copper maps clouds paper stars boats bridges cats winter "
    "music chess honey sand trees clocks mills ink birds stones lamps fire wheels soap fish corn tides cheese silk"
)
FOR_IT = {"X-Canary": "true"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateStack]:
    require(".venv-engine")
    folder, int8 = tmp_path_factory.mktemp("canary"), example_folder() / "int8"
    checkpoints = {"now": int8, "bad": plant(int8, folder / "bad", 40), "good": int8}
    models = [MODEL.format(name=name, checkpoint=checkpoint) for name, checkpoint in checkpoints.items()]
    config = folder / "bitladder.toml"
    config.write_text(CONFIG.format(python=ROOT / ".venv-engine" / "bin" / "python") + "".join(models))
    lines = [json.dumps({"prompt": f"Tell me something about {topic}."}) for topic in TOPICS.split()]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    with private_stack(str(config), {"worker.engine": "vllm"}) as stack:
        wait_until(lambda: live(stack) == {"now": 1, "bad": 1, "good": 1}, "every engine serves", 400)
        stack.folder = folder
        yield stack


def live(stack: PrivateStack) -> dict[str, int]:
    try:
        rows = httpx2.get(f"{stack.url}/v1/queues", timeout=5).json()["data"]
    except (httpx2.HTTPError, ValueError, KeyError):
        return {}
    return {row["model"]: row["tiers"][0]["live_workers"] for row in rows}


def run(stack: PrivateStack, candidate: str) -> subprocess.Popen[str]:
    out, prompts = stack.folder / f"canary-{candidate}", stack.folder / "prompts.jsonl"
    what = ["--model", "now", "--candidate", candidate, "--prompts", str(prompts), "--url", stack.url, "--yes"]
    how = ["--margin", "0.3", "--answer-tokens", "8", "--poll", "1", "--config", str(stack.folder / "bitladder.toml")]
    command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", "canary", "run", "-o", str(out)]
    return subprocess.Popen(
        [*command, *what, *how, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def ended(process: subprocess.Popen[str], returncode: int) -> dict[str, Any]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == returncode, error
    report: dict[str, Any] = json.loads(out)
    return report


def ask(stack: PrivateStack) -> str:
    body = {"model": "now", "prompt": "Tea is", "max_tokens": 1}
    return str(httpx2.post(f"{stack.url}/v1/completions", json=body, headers=FOR_IT, timeout=60).json()["model"])


def test_a_planted_bad_checkpoint_is_rolled_back_and_touches_few_requests(stack: PrivateStack) -> None:
    process, touched = run(stack, "bad"), 0
    while process.poll() is None:
        touched += ask(stack) == "bad"
        time.sleep(0.2)  # a client that never pauses takes both cores

    report = ended(process, 1)

    assert (report["phase"], report["decision"]) == ("rolled back", "worse")
    assert report["mean_difference"] > 0.4
    assert report["pairs"] <= 24
    assert report["touched"] == touched >= 1
    wait_until(lambda: ask(stack) == "now", "nothing goes to it", 5)
    print(json.dumps(report))  # noqa: T201  (for the page of benchmarks)


def test_a_good_checkpoint_is_promoted(stack: PrivateStack) -> None:
    report = ended(run(stack, "good"), 0)

    assert (report["phase"], report["decision"]) == ("promoted", "fine")
    assert abs(report["mean_difference"]) < 0.05
    wait_until(lambda: ask(stack) == "good", "it answers everybody", 5)
    print(json.dumps(report))  # noqa: T201
