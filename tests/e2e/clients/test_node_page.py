"""docs/api/node.md: its blocks, one after the other, are a program that does what the page says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, Stack
from tests.page_examples import blocks, here

NODE = shutil.which("node")
FOLDER = ROOT / ".venv-clients" / "node"


@pytest.mark.clients
@pytest.mark.skipif(NODE is None or not (FOLDER / "node_modules").exists(), reason="make clients-env")
def test_the_page_s_program_runs_from_its_first_line_to_its_last(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    for tier in ("int4", "int8"):
        stack.worker(tier)
    program = FOLDER / "page.mjs"
    program.write_text(here("\n".join(blocks("docs/api/node.md", "js")), stack), encoding="utf-8")

    done = subprocess.run([str(NODE), str(program)], capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert "from int4" in done.stdout
    assert "completed one two three" in done.stdout
    assert "completed { total: 2, completed: 2, failed: 0 }" in done.stdout
    assert '"custom_id":"two"' in done.stdout.replace(" ", "")
