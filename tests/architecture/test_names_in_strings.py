"""Modules that stand in strings exist: programs that tests write down, and attributes that they patch by name.

No type checker reads them, so a file that moves would leave them behind.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bitladder.process.tracing import gen_ai
from tests.conftest import ROOT

PACKAGES = "bitladder|dispatcher|workers|calibration|benchmarks|tests"
IMPORT = re.compile(rf"\bfrom ((?:{PACKAGES})(?:\.\w+)*) import (\w+)|\bimport ((?:{PACKAGES})(?:\.\w+)+)")
DOTTED = re.compile(rf"(?:{PACKAGES})(?:\.\w+)+")
# Labels that are no modules, and attributes of spans.
LABELS = {"workers.generate", *(value for value in vars(gen_ai).values() if isinstance(value, str))}
FOLDERS = (*PACKAGES.split("|"), "examples")
SOURCES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.parent != Path(__file__).parent
)


def missing(text: str) -> list[str]:
    """Return what a string names of ours that does not exist."""
    names = [".".join(filter(None, groups)) for groups in IMPORT.findall(text)]
    if DOTTED.fullmatch(text) and not re.search(r"\.(py|lua|md|toml|json|log|jsonl|txt|yaml)$", text):
        names.append(text)
    return [name for name in names if name not in LABELS and not exists(name)]


def exists(name: str) -> bool:
    path, parts = ROOT, name.split(".")
    while parts and ((path / parts[0]).is_dir() or (path / f"{parts[0]}.py").is_file()):
        path /= parts.pop(0)
    if not parts:
        return True
    module = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return module.is_file() and re.search(rf"\b{parts[0]}\b", module.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_named_in_a_string_exists(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]

    assert [name for text in strings for name in missing(text)] == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from bitladder.queue import protocols\n", "bitladder.queue.protocols"),
        ("import workers.gone", "workers.gone"),
        ("workers.slots.LOOK", "workers.slots.LOOK"),
    ],
)
def test_a_name_that_is_gone_is_found(text: str, name: str) -> None:
    assert missing(text) == [name]
