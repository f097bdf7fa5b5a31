"""The real quantizer on a small model of random weights: from a folder to a checkpoint that passes its inspection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Verdict
from tests.conftest import ROOT
from tests.e2e.small_model import require, write_small_model

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(".venv-quantize")
    return write_small_model(tmp_path_factory.mktemp("model"))


def quantize(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", "quantize", "--json", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("recipe", ["int4-awq-gptq-g32", "int8-smoothquant-gptq-qkv16"])
def test_a_model_becomes_a_checkpoint_that_may_serve(model: Path, tmp_path: Path, recipe: str) -> None:
    options = ("--tier", recipe[:4], "--recipe", recipe, "--model", str(model), "--out", str(tmp_path / "made"))

    done = quantize(*options)

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["recipe"], made["path"]) == (recipe, str(tmp_path / "made"))
    inspection = inspect_checkpoint(tmp_path / "made")
    assert inspection.verdict is not Verdict.FAIL, inspection.checks
    assert json.loads((tmp_path / "made" / "tokenizer.json").read_bytes())["truncation"] is None
    again = quantize(*options)
    assert json.loads(again.stdout)["skipped"], again.stderr


@pytest.mark.skipif(not (ROOT / ".venv-autoawq").exists(), reason="AutoAWQ is optional: `make autoawq-env`")
def test_autoawq_does_not_spoil_the_weights_on_a_cpu(model: Path, tmp_path: Path) -> None:
    done = quantize(
        *("--tier", "int4", "--recipe", "int4-autoawq-g64", "--model", str(model), "--out", str(tmp_path / "made"))
    )

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["perplexity"] == pytest.approx(made["reference_perplexity"], rel=0.05)
    inspection = inspect_checkpoint(tmp_path / "made")
    assert inspection.verdict is not Verdict.FAIL, inspection.checks


def test_weights_that_may_not_stay_in_memory_give_the_same_checkpoint(model: Path, tmp_path: Path) -> None:
    options = ("--tier", "fp8", "--model", str(model))

    whole = quantize(*options, "--out", str(tmp_path / "whole"))
    held = quantize(*options, "--out", str(tmp_path / "held"), "--memory-gb", "0.004")

    assert (whole.returncode, held.returncode) == (0, 0), whole.stderr + held.stderr
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "held"))
    assert one.read_bytes() == other.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "offload" in path.name] == []
