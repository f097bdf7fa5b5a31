"""Only QueueName puts names of queues together and takes them apart."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.test_sizes import ROOT, SOURCES

HOME = ROOT / "bitladder" / "queue_name.py"
# What else is divided at a colon, by words of its name: a policy's kind, a simulation's loads, addresses, and
# what other programs write.
OTHERS = ("policy", "spec", "settings.name", "url", "address", "line", "meaning")
METHODS = ("split", "rsplit", "partition", "rpartition", "count", "find", "index", "rindex")


def queue_names_in(source: str) -> list[str]:
    """Return the code that takes a text apart at colons, or makes one of three parts with colons between."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if _divides(node) or _joins(node)]


def _divides(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
        return False
    if any(word in ast.unparse(node.func.value) for word in OTHERS):
        return False
    return any(
        isinstance(argument, ast.Constant) and argument.value in (":", ":max-", "max-") for argument in node.args
    )


def _joins(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        return isinstance(node.func.value, ast.Constant) and node.func.value.value == ":"
    if not isinstance(node, ast.JoinedStr):
        return False
    shape = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    return shape.startswith("{}:{}:{}") or ":max-" in shape


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path != HOME], ids=lambda path: str(path.relative_to(ROOT))
)
def test_names_of_queues_are_made_and_read_in_one_place(path: Path) -> None:
    assert queue_names_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "queue.split(':')[1]",
        "queue.partition(':max-')[2]",
        "f'{model}:{tier}:{lane}'",
        "f'{queue}:max-{ceiling}'",
        "':'.join((model, tier, lane))",
    ],
)
def test_each_way_around_it_is_found(source: str) -> None:
    assert len(queue_names_in(source)) == 1
