"""bitladder/routing/code_lines.py: lines are told apart as the rule says, and quick."""

from __future__ import annotations

import time

import pytest

from bitladder.routing import code_lines as module
from bitladder.routing.code_lines import code_lines


@pytest.mark.parametrize(
    "line",
    [
        "def area(r):",
        "    return 3.14 * r",
        "import os",
        "from a.b import c",
        "if x > 2:",
        "} else {",
        "const x = 1",
        "#include <stdio.h>",
        "x += 10",
        "print(x)",
        "items[0] = 22",
        "SELECT * FROM t",
        "@cached",
        "// why",
        "struct point {",
        "  )",
    ],
)
def test_code_is_code(line: str) -> None:
    assert code_lines(line) == (1, 1)


@pytest.mark.parametrize(
    "line",
    [
        "The sky is blue.",
        "Import duties rise, and for what?",
        "Wait (and see).",
        "Forever yours",
        "returning soon.",
        "e = mc squared, said he.",
    ],
)
def test_prose_is_none(line: str) -> None:
    assert code_lines(line) == (0, 1)


def test_empty_lines_do_not_count_and_only_the_beginning_is_read() -> None:
    assert code_lines("") == code_lines(" \n\n\t\n") == (0, 0)
    assert code_lines("x = 10\n\n   \nIt is so.\n") == (1, 2)
    assert code_lines("x = 1\n" * 100_000)[1] == -(-module.LOOKED_AT_CHARS // 6)


@pytest.mark.parametrize("line", ["if " + "(" * 5000, "a." * 5000, " " * 5000 + "x", "x[" * 2500, "with " + ":" * 5000])
def test_no_line_takes_long(line: str) -> None:
    start = time.process_time()
    code_lines(line)

    assert time.process_time() - start < 0.1
