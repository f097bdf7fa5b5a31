"""docs/producers.md: every example on the page does what the page says, at the settings that ship."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Stack
from tests.page_examples import run_python


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    for name, value in stack.environment.items():
        if name.startswith("BITLADDER_"):
            monkeypatch.setenv(name, value)

    run_python("docs/producers.md", stack)
