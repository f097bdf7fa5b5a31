"""docs/api/engine-routes.md and requests.md: their examples run, and the table has every route of the engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

from bitladder.endpoints import Endpoint
from tests.conftest import ROOT, Stack
from tests.page_examples import blocks, here

PAGE = "docs/api/engine-routes.md"


def run(page: str, stack: Stack) -> tuple[str, str]:
    """Return what a page's commands and its program write."""
    (commands,), (program,) = blocks(page, "sh"), blocks(page, "python")
    said = subprocess.run(["bash", "-ec", here(commands, stack)], capture_output=True, text=True, check=True)
    printed = subprocess.run([sys.executable, "-c", here(program, stack)], capture_output=True, text=True, check=True)
    return said.stdout, printed.stdout


def test_the_examples_answer(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    said, printed = run(PAGE, stack)
    applied, ids = run("docs/api/requests.md", stack)

    answers = [json.loads(answer) for answer in said.replace("}{", "}\n{").splitlines()]
    names = ["output", "data", "content", "results", "id", "version"]
    assert [name in answer for name, answer in zip(names, answers, strict=True)] == [True] * len(names)
    assert printed.count("Why is the sky blue?") == 2
    assert printed.endswith("2 384\n")
    assert applied.strip().lower() == "preference-applied: wait=5"
    assert len(ids.split()) == 2
    assert len(set(ids.split())) == 1


def test_the_table_has_every_route() -> None:
    rows = [line.split("|")[1] for line in (ROOT / PAGE).read_text(encoding="utf-8").splitlines() if "| `/" in line]

    assert set(re.findall(r"`(/[^`]+)`", " ".join(rows))) == set(Endpoint)
