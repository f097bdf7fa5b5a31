"""What a Lua script is called with stands in one place, and so does what happens when a server has lost it."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from bitladder.queue.run_script import NAMES

ROOT = Path(__file__).parents[2]
CALLS, RUN_SCRIPT = ROOT / "bitladder/queue/calls", ROOT / "bitladder/queue/run_script.py"
OTHERS = sorted(
    path
    for package in ("bitladder", "dispatcher", "workers", "calibration")
    for path in (ROOT / package).rglob("*.py")
    if CALLS not in path.parents and path != RUN_SCRIPT
)
# What a script is named, loaded or run with, and the answer of a server that does not know it.
RESERVED = {"Call", "source", "digest", "evalsha", "register_script", "script_load", "NoScriptError"}


def test_each_script_is_called_in_one_place() -> None:
    called = Counter(
        str(node.args[0].value)
        for path in CALLS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Call"
        if isinstance(node.args[0], ast.Constant)
    )

    assert called == Counter(NAMES)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_names_a_script(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - {"source", "digest"}
    used |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("bitladder.queue", "redis"))
        for alias in node.names
    } - {"Call"}  # a module may take calls that it did not build

    assert used & RESERVED - _own_names(tree) == set()


def _own_names(tree: ast.AST) -> set[str]:
    """Return what the module defines or takes from elsewhere under these names."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("bitladder.queue", "redis"))
        for alias in node.names
    }
    return functions | arguments | imported
