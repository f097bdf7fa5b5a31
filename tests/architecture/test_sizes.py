"""Files and functions stay small enough to hold in mind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("bitladder", "dispatcher", "workers", "calibration", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 45


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # A process's metrics are one list of definitions, not a function to follow.
    most = 90 if path.name == "metrics.py" else MAX_FUNCTION_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert len(text.splitlines()) <= MAX_FILE_LINES
    assert [one.name for one in functions if (one.end_lineno or 0) - one.lineno >= most] == []
