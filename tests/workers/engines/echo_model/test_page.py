"""docs/operating/echo.md lists the fields that the echo engine reads, and the words that steer it."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import ROOT
from workers.engines.echo_model.request import Chat, Completion

PAGE = (ROOT / "docs" / "operating" / "echo.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_page_lists_every_field_that_is_read() -> None:
    rows = [line.split("|")[1] for line in section("What it reads").splitlines() if line.startswith("| `")]

    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted({*Chat.model_fields, *Completion.model_fields})


def test_the_page_lists_every_word_that_steers() -> None:
    listed = subprocess.run(["git", "grep", "-hoE", "echo:[a-z]+", "workers/engines"], cwd=ROOT, capture_output=True)

    assert set(re.findall(r"^\| `(echo:\w+)` ", section("Steering"), re.MULTILINE)) == set(
        listed.stdout.decode().split()
    )
