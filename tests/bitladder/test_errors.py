"""bitladder/errors.py: the tree that its head draws is the tree of its classes."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from bitladder import errors
from bitladder.errors import BitladderError
from tests.architecture.test_sizes import ROOT, SOURCES

LINE = re.compile(r"^([│├└─ ]*)(\w+Error)(?:\s+(\d{3}) )?")


def drawn() -> dict[str, tuple[str, int | None]]:
    """Return the parent and the status of each error that the head draws."""
    found: dict[str, tuple[str, int | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := LINE.match(line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            if depth:
                found[match[2]] = (path[depth - 1], int(match[3]) if match[3] else None)
    return found


# Modules with errors of their own.
ELSEWHERE = ("bitladder.queue.waiting.reading", "bitladder.routing.max_cost")


def defined(base: type[BitladderError] = BitladderError) -> dict[str, type[BitladderError]]:
    """Return the errors of the ground by name, those of its command line left out."""
    classes: dict[str, type[BitladderError]] = {}
    for item in base.__subclasses__():
        if item.__module__ in (errors.__name__, *ELSEWHERE):
            classes |= {item.__name__: item} | defined(item)
    return classes


def test_the_drawing_is_the_tree() -> None:
    for module in ELSEWHERE:
        import_module(module)
    classes = defined()
    tree = {name: item.__bases__[0].__name__ for name, item in classes.items()}

    assert {name: parent for name, (parent, _) in drawn().items()} == tree
    assert {name: status for name, (_, status) in drawn().items() if status} == {
        name: classes[name].status for name, (_, status) in drawn().items() if status
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_error_is_known_by_its_exact_class(path: Path) -> None:
    """A subclass is a kind of its base: whoever must tell them apart has a tree that is wrong."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.Compare) and _is_type_of_error(node)]

    assert [ast.unparse(node) for node in asked] == []


def _is_type_of_error(node: ast.Compare) -> bool:
    return ast.unparse(node.left).startswith("type(") and "Error" in ast.unparse(node)
