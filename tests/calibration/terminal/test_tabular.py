"""Tables show every value whole, on a terminal of any width and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from calibration.terminal.tabular import table
from tests.conftest import ROOT

LONG = "/srv/models/" + "a-folder-with-a-long-name/" * 6 + "int4"
JOBS = (("1", "normal"), ("2", "urgent"))
CODE = f"""
from calibration.terminal.tabular import table
print(table(("tier", "path"), [("int4", {LONG!r}), ("int8 \\x1b[2J", "a\\tb")], title="what was made", red=[1]))
"""


def shown(*, terminal: bool) -> str:
    out, into = pty.openpty() if terminal else os.pipe()
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environment, stdout=into, check=True, timeout=60)
    text = os.read(out, 2**16).decode().replace("\r\n", "\n")
    os.close(out)
    os.close(into)
    return text


def test_in_a_pipe_a_row_is_a_line_with_tabs() -> None:
    assert shown(terminal=False) == f"what was made\ntier\tpath\nint4\t{LONG}\nint8  [2J\ta b\n"


def test_on_a_terminal_columns_are_aligned_and_a_long_path_stays_whole() -> None:
    title, head, first, second = shown(terminal=True).splitlines()

    assert title == "what was made"
    assert head == "\x1b[1mtier       path\x1b[0m"
    assert first == f"int4       {LONG}"
    assert second == "\x1b[31mint8  [2J  a b\x1b[0m"


def test_a_table_too_wide_for_its_terminal_says_once_what_is_the_same_in_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    columns = ("id", "state", "model", "tier", "lane", "worker", "error")
    rows = [(number * 36, "failed", "smollm2", "fp8", lane, "smollm2.fp8.c518b859ae24", "") for number, lane in JOBS]

    monkeypatch.setenv("COLUMNS", "120")
    wide = [re.sub(r"\x1b\[\d+m", "", line) for line in table(columns, rows).splitlines()]
    monkeypatch.setenv("COLUMNS", "80")
    narrow = [re.sub(r"\x1b\[\d+m", "", line) for line in table(columns, rows).splitlines()]

    assert len(wide) == 3
    assert wide[1].split() == [str(cell) for cell in rows[0] if cell]
    assert narrow[:2] == [
        "in every row: worker smollm2.fp8.c518b859ae24",
        "id                                    state   model    tier  lane    error",
    ]
    assert [line.split()[0] for line in narrow[2:]] == ["1" * 36, "2" * 36]


def test_no_command_of_calibration_draws_tables_that_break_paths() -> None:
    files = sorted((ROOT / "calibration").rglob("*.py"))

    assert [path for path in files if "rich.table" in path.read_text(encoding="utf-8")] == []
