"""docs/api/batches.md: its commands and its program do what the page says, at the settings that ship."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Stack
from tests.examples.test_files_page import run
from tests.page_examples import blocks, here

PAGE = "docs/api/batches.md"


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "store"))
    stack.intake()
    for tier in ("int4", "fp8"):
        stack.worker(tier)
    (commands,), (program,) = (blocks(PAGE, language) for language in ("sh", "python"))

    by_curl = run(["bash", "-e", "-c", here(commands, stack)], tmp_path)
    by_python = run([sys.executable, "-c", here(program, stack)], tmp_path).splitlines()

    assert [json.loads(text)["custom_id"] for text in by_curl.splitlines()] == ["a"]
    assert by_python[0] == "completed 1 of 1"
    assert json.loads(by_python[1])["response"]["body"]["choices"][0]["message"]["content"] == "Hi"
