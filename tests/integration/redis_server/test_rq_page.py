"""docs/rq.md: every example on the page does what the page says."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Stack

PAGE = (ROOT / "docs" / "rq.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    return stack


def here(text: str, stack: Stack, redis_url: str) -> str:
    """Put this test's addresses in the place of the usual ones."""
    return text.replace("redis://127.0.0.1:6379/0", redis_url).replace("http://127.0.0.1:8000", stack.url)


def test_the_examples_in_python_do_what_the_page_says(stack: Stack, redis_url: str) -> None:
    text = here("\n".join(blocks("pycon")), stack, redis_url)
    examples = doctest.DocTestParser().get_doctest(text, {}, "docs/rq.md", "docs/rq.md", 0)
    said: list[str] = []

    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=said.append, clear_globs=False)
    examples.globs["redis"].close()

    assert results.attempted > 20
    assert results.failed == 0, "".join(said)


def test_the_commands_on_the_page_work(stack: Stack, redis_url: str) -> None:
    environment = stack.environment | {"PATH": f"{Path(sys.executable).parent}:{stack.environment['PATH']}"}
    lines = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]

    for line in lines:
        command = here(line, stack, redis_url).split()
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"

    assert len(lines) == 4
