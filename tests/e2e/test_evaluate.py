"""The whole evaluation of one checkpoint on real vLLM, small; and the second time without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calibration.artifacts.evaluation_report import read_report
from calibration.environment import example_folder
from tests.conftest import ROOT

pytestmark = pytest.mark.vllm
CACHE = example_folder()
TASKS = (
    '{"name": "capitals", "prompt": "The capital of France is", "max_tokens": 4, "regex": "Paris"}\n'
    '{"name": "capitals", "prompt": "The capital of Italy is", "max_tokens": 4, "regex": "Atlantis"}\n'
)


def evaluate(out: Path, tasks: Path) -> subprocess.CompletedProcess[str]:
    small = [
        "--tokens",
        "200",
        "--top",
        "16",
        "--problems",
        "4",
        "--answers",
        "2",
        "--tasks",
        str(tasks),
        "--out",
        str(out),
        "--json",
    ]
    folder = str(CACHE / "int8")
    command = [sys.executable, "-m", "calibration", "evaluate", folder, "--reference", folder, *small]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def completions(out: Path) -> list[dict[str, str]]:
    (file,) = (out / "results").glob("code-*.result")
    found: list[dict[str, str]] = json.loads(file.read_bytes())
    return found


def forms(out: Path) -> set[tuple[str, str]]:
    """Return how texts of each kind were asked for an answer, where there was one."""
    lines = [json.loads(line) for line in (out / "prompts.jsonl").read_text().splitlines()]
    answers = [(line["kind"], line["tiers"]["int8"].get("answer")) for line in lines]
    return {(kind, answer["form"]) for kind, answer in answers if answer and answer["tokens"] > 5}


def test_a_checkpoint_is_measured_once_and_reported_as_often_as_one_likes(tmp_path: Path) -> None:
    if not (ROOT / ".venv-engine" / "bin" / "python").exists() or not CACHE.exists():
        message = "there is no .venv-engine or no checkpoint: `make engine-env checkpoints` makes them"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(TASKS)

    first = evaluate(tmp_path / "out", tasks)
    started_s = time.monotonic()
    second = evaluate(tmp_path / "out", tasks)
    second_s = time.monotonic() - started_s

    assert first.returncode == second.returncode == 0, first.stderr
    report = read_report(tmp_path / "out" / "report.json")
    (tier,) = report.tiers
    assert tier.tier == report.reference == "int8"
    assert json.loads(first.stdout)["tiers"] == json.loads(second.stdout)["tiers"]
    metrics = tier.metrics
    assert 1.5 < metrics["perplexity.code"].value < 10 < metrics["perplexity.prose"].value < 100
    assert 190 <= metrics["perplexity.code"].n <= 200
    assert metrics["pass_at_1"].n == 4
    assert sum("\n    return " in answer["completion"] for answer in completions(tmp_path / "out")) >= 2
    assert (metrics["task.capitals"].value, metrics["task.capitals"].n) == (0.5, 2)
    assert metrics["tokens_per_s"].value > 1
    assert 0 < metrics["ttft_ms.p50"].value <= metrics["ttft_ms.p99"].value
    assert metrics["memory_bytes.resident"].value > metrics["memory_bytes.weights"].value > 10**8
    assert {("code", "chat"), ("prose", "chat"), ("prompts", "text")} <= forms(
        tmp_path / "out"
    )  # some are in a template
    assert {"report.json", "report.html", "quality-cost.png"} < {path.name for path in (tmp_path / "out").iterdir()}
    assert "starting the engine" in first.stderr
    assert "starting the engine" not in second.stderr
    assert second_s < 30
