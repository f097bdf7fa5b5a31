"""What bitladder asks to be installed is what it imports."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache

import pytest

from tests.architecture.test_sizes import ROOT, SOURCES

# Needed, and imported by nothing of ours.
OTHERWISE = {
    "rq": "its command line looks at our queues (docs/rq.md)",
    "uvloop": "uvicorn loads it by its name",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = [re.split(r"[\[<>=~;, ]", line)[0] for line in PROJECT["dependencies"]]


@cache
def imported() -> set[str]:
    modules: set[str] = set()
    for path in SOURCES:
        if path.is_relative_to(ROOT / "benchmarks"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").split(".")[0])
    return modules


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHERWISE])
def test_every_dependency_is_imported(name: str) -> None:
    assert name.replace("-", "_") in imported()
