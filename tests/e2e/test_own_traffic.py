"""From prompts in S3, none of them English, to a worker that serves what was calibrated on them, and back.

The real quantizer and real vLLM, on a model of two layers: the path is what is shown here, quality is in
docs/calibration/figures.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from bitladder.client import Client
from bitladder.settings.checkpoint_digest import checkpoint_digest
from calibration.texts.packaged import KINDS
from tests.conftest import ROOT, Stack, wait_until
from tests.e2e.own_traffic import written_traffic
from tests.e2e.small_model import require, write_small_model
from tests.integration.engines.test_release import load, names, shown
from tests.s3_server import s3_server

pytestmark = pytest.mark.vllm
START_S = 300
STEP_S = 600
CONFIG = """
[vllm]
python = "{python}"
args = ["--max-model-len", "512", "--enforce-eager", "--max-num-seqs", "8"]
[vllm.env]
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
[models.smollm2]
[[models.smollm2.tiers]]
name = "int4"
checkpoint = "{model}"
"""
QUESTION = {"model": "smollm2", "prompt": "Wann kommt ein Techniker?", "max_tokens": 8, "temperature": 0}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        bucket = boto3.resource("s3", endpoint_url=url).Bucket("prompt-logs")
        bucket.create()
        for route, prompts in written_traffic().items():
            lines = [json.dumps({"prompt": prompt, "route": route}, ensure_ascii=False) for prompt in prompts]
            bucket.put_object(Key=f"november/{route}.jsonl", Body="\n".join(lines).encode())
        yield url


class Calibration:
    """The steps of the command line, in one folder; each checks what it says of the own traffic."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, write_small_model(folder / "model")
        self.samples, self.made, self.out = (folder / name for name in ("set", "made", "evaluation"))
        self.config = folder / "bitladder.toml"
        content = CONFIG.format(python=ROOT / ".venv-engine/bin/python", model=self.model)
        self.config.write_text(content, encoding="utf-8")

    def run(self, *arguments: str | Path) -> Any:  # noqa: ANN401  (JSON)
        command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", *map(str, arguments), "--json"]
        environment = os.environ | {"BITLADDER_CONFIG": str(self.config)} | CREDENTIALS
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=STEP_S)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sample(self, url: str) -> None:
        where = ("--source", "s3://prompt-logs/november/", "--endpoint-url", url, "--group", "route")
        strata = self.run("sample", *where, "--out", self.samples, "--count", "60", "--heldout", "40")["strata"]
        assert set(strata["group"]) == {"tickets", "reports", "orders", "letters"}
        assert set(strata["language"]) == {"de", "sql", "-"}

    def audit(self) -> None:
        figures = self.run("audit", "--source", self.samples, "--out", self.folder / "audit", "--no-plots")
        assert sum(shares["int4"] for shares in figures["floors_by_rule"].values()) == pytest.approx(1)

    def quantize(self) -> None:
        options = ("--samples", self.samples, "--general-share", "0.2", "--out", self.made)
        self.run("quantize", "--tier", "int4", "--model", self.model, *options)
        manifest = json.loads((self.made / "manifest.json").read_bytes())
        judged = {name: group["kl"] for name, group in manifest["groups"].items() if group["judged"]}
        assert set(judged) == {"own prose de", "own code sql", "own json"}
        assert 0 < max(judged.values()) < 0.15
        assert set(KINDS) < set(manifest["groups"])  # packaged text: beside it, for information
        tokens = manifest["calibration"]
        share = tokens["general_tokens"] / (tokens["general_tokens"] + tokens["sample_tokens"])
        assert (tokens["samples"], share) == (60, pytest.approx(0.2, abs=0.02))

    def evaluate(self) -> None:
        few = ("--tokens", "600", "--top", "16", "--answers", "4", "--answer-tokens", "8", "--without-served")
        heldout = ("--heldout", self.samples / "heldout.jsonl")
        report = self.run("evaluate", self.made, "--reference", f"bf16={self.model}", *heldout, *few, "--out", self.out)
        reference, tier = report["tiers"]
        assert (reference["tier"], tier["tier"]) == ("bf16", "int4")
        assert {"kl_mean.prose", "kl_mean.code", "kl_mean.json", "answer_top1.prose"} <= set(tier["metrics"])
        assert {f"kl_by_group.{route}" for route in ("tickets", "reports", "orders")} <= set(tier["metrics"])
        assert "pass_at_1" not in tier["metrics"]  # nobody asks for programs here


def test_own_traffic_goes_from_s3_to_a_running_worker_and_back(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path, s3: str
) -> None:
    require(".venv-quantize", ".venv-engine")
    calibration = Calibration(tmp_path)
    calibration.sample(s3)
    calibration.audit()
    calibration.quantize()
    calibration.run("inspect", calibration.made)
    calibration.evaluate()
    files = {"BITLADDER_CONFIG": str(calibration.config), "BITLADDER_PUBLISH__FILE": "ladder.toml"}
    stack = make_stack(**files, BITLADDER_WORKER__ENGINE="vllm")
    stack.intake()
    worker = stack.start("worker", "--tier", "int4")
    wait_until(lambda: len(names(store, "int4")) == 1, "vLLM serves what the configuration names", START_S)
    before = answer(stack)

    def change(*arguments: str | Path) -> None:
        old = names(store, "int4")
        calibration.run(*arguments)
        wait_until(lambda: bool(names(store, "int4") - old), "the worker serves it", START_S)
        count = len(jobs)
        wait_until(lambda: len(jobs) > count + 5, "jobs go on", 60)

    with load(stack, max_tier="int4") as jobs:
        change("publish", calibration.out / "report.json")
        assert shown(stack)["int4"]["digest"] == checkpoint_digest(calibration.made)
        assert len(answer(stack)) > 0
        change("rollback")
        assert shown(stack) == {}

    assert worker.poll() is None
    assert {(job["status"], job["attempts"]) for _, job in jobs} == {("finished", 1)}
    assert answer(stack) == before


def answer(stack: Stack) -> str:
    with Client(stack.url) as client:
        job = client.wait(client.submit(QUESTION)["id"], timeout_s=60)
    return str(job["result"]["choices"][0]["text"])
