"""docs/operating/guides/checklist.md: the article's checklist, step by step, on echo engines as they ship."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Stack
from tests.page_examples import blocks

PAGE = "docs/operating/guides/checklist.md"
STEPS = ("audit", "deploy", "thresholds", "instrument", "load", "canary", "roll out")


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("promtool"), reason="`make servers` installs promtool")
def test_every_step_of_the_checklist_is_a_command_that_works(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    shutil.copy(ROOT / "bitladder.toml", tmp_path)
    (tmp_path / "monitoring").symlink_to(ROOT / "monitoring")
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "files"))
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = stack.environment | {"PATH": path, "BITLADDER_URL": stack.url}

    said = {}
    for step, commands in zip(STEPS, blocks(PAGE, "bash"), strict=True):
        run = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
        said[step] = done.stdout

    assert "int4: entropy 3.75 <= 4.5" in said["thresholds"]
    assert "int8: entropy 3.75 > 3.5" in said["thresholds"]
    assert said["load"].count(": met") == 4
    policies = {line.split()[-1].split("@")[0]: int(line.split()[0]) for line in said["canary"].splitlines()[-2:]}
    assert 40 < policies["canary/article"] < 60
    assert "saving" in said["roll out"]
