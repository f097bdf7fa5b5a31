"""docs/api/responses.md: every example on the page does what the page says, at the settings that ship."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.conftest import Stack
from tests.page_examples import run_python, run_shell

PAGE = "docs/api/responses.md"


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    variables = run_python(PAGE, stack, at_least=15)
    variables["client"].close()
    (queued,) = run_shell(PAGE, stack)

    assert json.loads(queued)["status"] == "queued"
