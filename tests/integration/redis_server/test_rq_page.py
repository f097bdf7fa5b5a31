"""docs/rq.md: every example on the page does what the page says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Stack
from tests.page_examples import blocks, here, run_python

PAGE = "docs/rq.md"


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    return stack


def test_the_examples_in_python_do_what_the_page_says(stack: Stack) -> None:
    run_python(PAGE, stack)["redis"].close()


def test_the_commands_on_the_page_work(stack: Stack) -> None:
    environment = stack.environment | {"PATH": f"{Path(sys.executable).parent}:{stack.environment['PATH']}"}
    lines = [line.removeprefix("$ ") for block in blocks(PAGE, "console") for line in block.splitlines()]

    for line in lines:
        command = here(line, stack).split()
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"

    assert len(lines) == 4
