"""docs/operating/loadtest.md: its commands run as they stand there, against a stack of echo workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bitladder.cli.ops.loadtest.load_plan import Mode
from bitladder.cli.ops.loadtest.loadtest_command import _OPTIONS
from tests.conftest import ROOT, Stack
from tests.page_examples import blocks
from tests.warm_start import BITLADDER

PAGE = "docs/operating/loadtest.md"


def test_the_commands_of_the_page_run(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    environment = stack.environment | {"BITLADDER_URL": stack.url}

    (block,) = blocks(PAGE, "bash")
    lines = block.replace("pairs.csv", str(tmp_path / "pairs.csv")).splitlines()
    done = [BITLADDER.run("bitladder.cli.main", *line.split()[1:], env=environment) for line in lines]

    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert "target p95: met" in done[0].stdout
    assert '"by_mode"' in done[1].stdout
    assert len((tmp_path / "pairs.csv").read_text(encoding="utf-8").splitlines()) > 20


def test_the_options_of_the_page_exist() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")

    named = {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", text)}
    assert named <= {*_OPTIONS} - {"as_json"} | {"json"}
    assert {*re.findall(r"chat-stream|completions-stream", text)} <= {*Mode}
