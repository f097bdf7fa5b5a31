"""docs/operating/loadtest.md: its commands run as they stand there, against a stack of echo workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bitladder.cli.ops.loadtest.loadtest_command import _OPTIONS
from bitladder.cli.ops.loadtest.plan import Mode
from tests.conftest import ROOT, Stack
from tests.page_examples import blocks

PAGE = "docs/operating/loadtest.md"


def test_the_commands_of_the_page_run(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    path = f"{Path(sys.executable).parent}{os.pathsep}{stack.environment['PATH']}"
    environment = stack.environment | {"PATH": path, "BITLADDER_URL": stack.url}

    (block,) = blocks(PAGE, "bash")
    done = subprocess.run(["bash", "-euc", block], env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr + done.stdout
    assert "target p95: met" in done.stdout
    assert '"by_mode"' in done.stdout
    assert len((tmp_path / "pairs.csv").read_text(encoding="utf-8").splitlines()) > 20


def test_the_options_of_the_page_exist() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")

    named = {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", text)}
    assert named <= {*_OPTIONS} - {"as_json"} | {"json"}
    assert {*re.findall(r"chat-stream|completions-stream", text)} <= {*Mode}
