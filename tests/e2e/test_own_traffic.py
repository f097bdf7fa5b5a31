"""Real vLLM, real checkpoints: inspected, published, taken under load, rolled back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from bitladder.client import Client
from bitladder.settings.checkpoint_digest import checkpoint_digest
from calibration.artifacts.evaluation_report import Estimate, Report, TierReport, encode_report
from calibration.environment import example_folder
from tests.conftest import ROOT, Stack, wait_until
from tests.e2e.test_real_vllm import CONFIG
from tests.integration.engines.test_release import load, names, shown

pytestmark = pytest.mark.vllm
CACHE = example_folder()
START_S = 300
QUESTION = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}


def engine_python() -> Path:
    python = ROOT / ".venv-engine" / "bin" / "python"
    if not python.exists() or not (CACHE / "int8").exists():
        message = "there is no .venv-engine, or no checkpoints: `make engine-env checkpoints` makes them"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return python


def figure(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=1000)


def report(checkpoint: Path) -> bytes:
    """Return the report of an evaluation of one checkpoint for the tier int8, beside the reference."""
    reference = TierReport(tier="bf16", checkpoint="/reference", digest="0" * 64, metrics={"perplexity": figure(6.86)})
    tier = TierReport(
        tier="int8",
        checkpoint=str(checkpoint),
        digest=checkpoint_digest(checkpoint),
        metrics={"perplexity": figure(7.01)},
        recovery={"perplexity": figure(0.98)},
    )
    return encode_report(
        Report(
            model="smollm2",
            reference="bf16",
            tiers=(reference, tier),
            sources={},
            versions={},
            machine={},
            made_at="2026-11-24T12:00:00+00:00",
            seconds=1,
        )
    )


def test_a_real_engine_takes_a_published_checkpoint_and_goes_back(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path
) -> None:
    config = tmp_path / "bitladder.toml"
    config.write_text(CONFIG.format(python=engine_python()), encoding="utf-8")

    def calibrate(*arguments: str) -> None:
        command = [sys.executable, "-m", "calibration", *arguments, "--config", str(config)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)

    def publish(folder: str) -> None:
        path = tmp_path / f"{folder}.json"
        if not (tmp_path / folder).exists():  # what is published is marked: the example's stay as they are
            shutil.copytree(CACHE / folder, tmp_path / folder, copy_function=os.symlink)
        path.write_bytes(report(tmp_path / folder))
        calibrate("publish", str(path), "--tiers", "int8", "--without-incumbent")

    publish("int8")
    stack = make_stack(
        BITLADDER_CONFIG=str(config),
        BITLADDER_PUBLISH__FILE="ladder.toml",
        BITLADDER_WORKER__ENGINE="vllm",
    )
    stack.intake()
    worker = stack.start("worker", "--tier", "int8")
    wait_until(lambda: len(names(store, "int8")) == 1, "vLLM serves", START_S)
    before = answer(stack)

    with load(stack, max_tier="int8") as jobs:
        changes: list[Callable[[], None]] = [lambda: publish("bf16"), lambda: calibrate("rollback")]
        for change in changes:
            old, version = names(store, "int8"), shown(stack)["int8"]["version"]
            change()
            wait_until(lambda: bool(names(store, "int8") - old), "the worker serves it", START_S)  # noqa: B023
            assert shown(stack)["int8"]["version"] == version + 1
            count = len(jobs)
            wait_until(lambda: len(jobs) > count + 5, "jobs go on", 60)  # noqa: B023

    assert worker.poll() is None
    assert {(job["status"], job["attempts"]) for _, job in jobs} == {("finished", 1)}
    assert shown(stack)["int8"]["digest"] == checkpoint_digest(CACHE / "int8")
    assert answer(stack) == before


def answer(stack: Stack) -> Any:  # noqa: ANN401  (JSON)
    with Client(stack.url) as client:
        job = client.wait(client.submit(QUESTION)["id"], timeout_s=60)
    return job["result"]["choices"][0]["text"]
