"""docs/api/streams.md: every example on the page does what the page says, at the settings that ship."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.conftest import Stack
from tests.page_examples import run_python, run_shell


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    streamed, read_on = run_shell("docs/api/streams.md", stack)
    run_python("docs/api/streams.md", stack, at_least=5)

    assert "one" in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    events = re.findall(r"^data: (\{.*)$", read_on, re.MULTILINE)
    assert [json.loads(event)["choices"][0]["text"] for event in events] == [" two", " three"]
    assert read_on.endswith("data: [DONE]\n\n")
