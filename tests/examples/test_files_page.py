"""docs/api/files.md: its commands and its program do what the page says, at the settings that ship."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Stack
from tests.page_examples import blocks, here

PAGE = "docs/api/files.md"


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "store"))
    stack.intake()
    (commands,), (program,) = (blocks(PAGE, language) for language in ("sh", "python"))

    uploaded, listed = json_values(run(["bash", "-e", "-c", here(commands, stack)], tmp_path))
    shown = run([sys.executable, "-c", here(program, stack)], tmp_path)

    assert listed["data"] == [uploaded]
    assert (uploaded["filename"], uploaded["purpose"]) == ("batch.jsonl", "batch")
    assert shown.splitlines()[0].split()[1:] == [str(uploaded["bytes"]), "processed"]
    assert shown.splitlines()[1] == (tmp_path / "batch.jsonl").read_text(encoding="utf-8").strip()
    assert [file["id"] for file in stack.http.get("/v1/files").json()["data"]] == [uploaded["id"]]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def json_values(text: str) -> list[dict[str, object]]:
    decoder, values = json.JSONDecoder(), []
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values
