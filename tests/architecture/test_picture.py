"""The picture at the top of README.md shows what there is: folders, and imports between them."""

from __future__ import annotations

import ast

import pytest

from docs.picture.draw import PICTURE, SOURCE, Arrow, read, svg
from tests.conftest import ROOT

DRAWING = read(SOURCE.read_text(encoding="utf-8"))
FOLDERS = [box.name for box in DRAWING.boxes.values() if box.kind != "other"]
CALLS = [arrow for arrow in DRAWING.arrows if {arrow.tail, arrow.head} <= set(FOLDERS)]


def imported_by(folder: str) -> set[str]:
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return names


def test_every_box_is_a_folder_or_something_outside() -> None:
    assert [name for name in FOLDERS if not (ROOT / name / "__init__.py").exists()] == []
    assert [box.name for box in DRAWING.boxes.values() if box.kind == "other" and (ROOT / box.name).exists()] == []


def test_every_package_is_in_the_picture() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {
        "tests",
        "benchmarks",
        "examples",
        "monitoring",
    }

    assert packages - set(FOLDERS) == set()


@pytest.mark.parametrize("arrow", CALLS, ids=lambda arrow: f"{arrow.tail} -> {arrow.head}")
def test_every_arrow_between_folders_is_an_import(arrow: Arrow) -> None:
    """Those that there are the contracts allow: see test_plants.py."""
    module = arrow.head.replace("/", ".")

    assert [name for name in imported_by(arrow.tail) if f"{name}.".startswith(f"{module}.")]


def test_the_picture_is_drawn_from_its_source() -> None:
    assert PICTURE.read_text(encoding="utf-8") == svg(DRAWING), "draw it again: python -m docs.picture.draw"


@pytest.mark.parametrize(
    ("line", "message"),
    [("a box", "line 1 of boxes.txt is neither a box nor an arrow: 'a box'"), ("a -> b | c", "name no box: a, b")],
)
def test_a_line_that_says_nothing_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(line)


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_picture_stands_on_the_pages(page: str) -> None:
    assert "picture/picture.svg" in (ROOT / page).read_text(encoding="utf-8")
