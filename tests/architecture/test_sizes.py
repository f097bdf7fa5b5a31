"""Files, functions, classes and folders stay small enough to hold in mind, and tests lie where their sources do.

Each list of exceptions may only shrink: what has become small must leave it.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("bitladder", "dispatcher", "workers", "calibration")
SOURCES = sorted(
    path for package in (*PRODUCT, "benchmarks", "examples", "monitoring") for path in (ROOT / package).rglob("*.py")
)
TESTS = sorted(path for package in PRODUCT for path in (ROOT / "tests" / package).rglob("test_*.py"))
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 45
MAX_CLASS_LINES = 200
MAX_FOLDER_ENTRIES = 20
# Each with the size that it may have at most.
LARGE_CLASSES: dict[str, int] = {}
LARGE_FOLDERS: dict[str, int] = {}
# How many modules share a base name: who looks for `errors` finds two. __main__ and __init__ have no choice.
SHARED_NAMES = {
    "app": 2,
    "base": 3,
    "engine": 2,
    "errors": 3,  # a tree for each: the ground, the engines, calibration
    "features": 2,
    "reading": 2,
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_and_its_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(text))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert len(text.splitlines()) <= MAX_FILE_LINES
    assert [function.name for function in functions if lines_of(function) > MAX_FUNCTION_LINES] == []


def test_classes_stay_small() -> None:
    sizes = {
        f"{name_of(path)}:{node.name}": lines_of(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }

    assert_only_shrinks({name: size for name, size in sizes.items() if size > MAX_CLASS_LINES}, LARGE_CLASSES)


def test_folders_stay_small() -> None:
    packages = [
        ROOT / package for package in (*PRODUCT, "benchmarks", "compose", "docs", "examples", "monitoring", "tests")
    ]
    folders = [folder for package in packages for folder in (package, *package.rglob("*")) if folder.is_dir()]
    # Decisions are numbered, and are never taken away.
    folders = [folder for folder in folders if "__pycache__" not in folder.parts and folder.name != "decisions"]
    sizes = {name_of(folder): len(entries(folder)) for folder in folders}

    assert_only_shrinks({name: size for name, size in sizes.items() if size > MAX_FOLDER_ENTRIES}, LARGE_FOLDERS)


def entries(folder: Path) -> list[str]:
    # What every package has says nothing to a reader.
    names = {path.name for path in folder.iterdir()} - {"__pycache__", "__init__.py", "py.typed"}
    return [name for name in names if not name.startswith(".")]


def test_few_modules_share_a_name() -> None:
    modules = [
        path for path in SOURCES if path.stem not in {"__init__", "__main__"} and path.parent != ROOT / "examples"
    ]
    counts = Counter(path.stem for path in modules)

    assert_only_shrinks({name: count for name, count in counts.items() if count > 1}, SHARED_NAMES)


def assert_only_shrinks(sizes: dict[str, int], allowed: dict[str, int]) -> None:
    """Hold what is over a limit against the list of what may be."""
    assert {name: size for name, size in sizes.items() if size > allowed.get(name, 0)} == {}, "too large"
    assert set(allowed) - set(sizes) == set(), "small by now: take these out of the list"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_a_test_lies_where_its_source_does_or_says_what_it_is_about(path: Path) -> None:
    folder = ROOT / path.parent.relative_to(ROOT / "tests")
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    assert folder.is_dir()
    assert (folder / path.name.removeprefix("test_")).exists() or len(about.split()) >= 6
