"""A module that says it is pure does no input or output, starts nothing and does not ask what time it is.

A module says so with the word "pure" in its docstring, or in that of its package. "Pure but for reading ..." may read
files, and nothing else.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("bitladder", "dispatcher", "workers", "calibration", "benchmarks")
# What a pure module does not import, by the first part of the name ...
IMPORTS = re.compile(
    r"(aiohttp|asyncio|boto3|concurrent|ctypes|httpx2|io|multiprocessing|os|random|redis|rq|secrets|selectors|shutil|signal"
    r"|socket|ssl|starlette|subprocess|sys|tempfile|threading|urllib(?!\.parse$)|uvicorn|uvloop)(\.|$)"
)
# ... and what it does not call.
CALLS = re.compile(r"(open|print|input|time\.\w+|(datetime\.)?(datetime|date)\.(now|utcnow|today))$")
READING = re.compile(r"\.(open|read_text|read_bytes|iterdir|r?glob|exists|is_file|is_dir|stat)$")
WRITING = re.compile(r"\.(write_text|write_bytes|mkdir|rmdir|unlink|rename|touch)$")


def says(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or "" if "pure" in source.lower() else ""  # to parse all takes a second


def pure_modules() -> list[Path]:
    modules = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    pure = {path for path in modules if re.search(r"\bpure\b", says(path), re.IGNORECASE)}
    folders = {path.parent for path in pure if path.name == "__init__.py"}
    return [path for path in modules if path in pure or folders & set(path.parents)]


def impurities(source: str, *, may_read: bool = False) -> list[str]:
    """Return the imports and calls of a module that a pure one does not have, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"{node.lineno}: import {name}" for name in names if IMPORTS.match(name)]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            is_reading = READING.search(name) is not None
            if CALLS.match(name) or WRITING.search(name) or (is_reading and not may_read):
                found.append(f"{node.lineno}: {name}()")
    return found


MODULES = pure_modules()


def test_modules_say_that_they_are_pure() -> None:
    names = {str(path.relative_to(ROOT)) for path in MODULES}

    assert {"bitladder/routing/rates.py", "workers/engine_health/breaker.py", "calibration/statistics.py"} <= names
    assert len(names) > 25


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_that_says_it_is_pure_is(path: Path) -> None:
    may_read = re.search(r"\bpure but for\s+reading\b", says(path), re.IGNORECASE) is not None

    assert impurities(path.read_text(encoding="utf-8"), may_read=may_read) == []


@pytest.mark.parametrize(
    "line",
    [
        "import redis",
        "import asyncio.subprocess",
        "from socket import socket",
        "import subprocess",
        "now = time.time()",
        "now = datetime.now(UTC)",
        "text = open('a').read()",
        "text = path.read_text()",
        "path.write_text('a')",
    ],
)
def test_what_is_planted_in_a_pure_module_is_caught(line: str) -> None:
    source = (ROOT / "bitladder/routing/rates.py").read_text(encoding="utf-8")

    assert impurities(source) == []
    assert len(impurities(f"{source}\n{line}\n")) == 1
