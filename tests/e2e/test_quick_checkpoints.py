"""The example rounded in the engine's environment: what it takes, and that what comes out may serve."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Verdict
from tests.conftest import ROOT

pytestmark = pytest.mark.vllm
PYTHON = ROOT / ".venv-engine" / "bin" / "python"


def test_the_engine_s_environment_rounds_the_example_without_the_quantizer(tmp_path: Path) -> None:
    command = [str(PYTHON), "-m", "calibration", "checkpoints", "--quick", "--json", "--tiers", "int4,fp8"]

    done = subprocess.run([*command, "--cache", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300)

    if "make engine-env" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the engine's environment is older: `make engine-env`")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["tiers"]
    assert [(tier["tier"], tier["quick"], tier["perplexity"]) for tier in made] == [
        ("int4", True, None),
        ("fp8", True, None),
    ]
    assert "`make checkpoints` makes good ones" in done.stderr
    for tier in made:
        inspection = inspect_checkpoint(Path(tier["path"]))
        assert inspection.verdict is not Verdict.FAIL, inspection.checks
