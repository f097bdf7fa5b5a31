"""calibration/terminal/progress.py: long work says how far it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from calibration.terminal import progress as steps
from calibration.terminal.progress import Steps


def run(output: io.StringIO, *, is_terminal: bool) -> None:
    shown = Steps(Console(file=output, force_terminal=is_terminal, width=100))
    with shown.showing(), shown.step("int4", "GPTQ") as advance:
        for done in range(1, 4):
            advance(done, 3)


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(steps, "_SAY_EVERY_S", 0.0)

    run(output, is_terminal=False)

    lines = [line.strip() for line in output.getvalue().splitlines()]
    assert lines[:4] == ["int4  GPTQ ...", "int4  GPTQ: 1 of 3", "int4  GPTQ: 2 of 3", "int4  GPTQ: 3 of 3"]


def test_without_a_terminal_quick_work_says_nothing_in_between() -> None:
    output = io.StringIO()

    run(output, is_terminal=False)

    assert " of 3" not in output.getvalue()


def test_a_terminal_gets_a_bar_that_ends_full() -> None:
    output = io.StringIO()

    run(output, is_terminal=True)

    assert "3/3" in output.getvalue()


def test_where_nobody_knows_the_whole_only_what_is_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, bar = io.StringIO(), io.StringIO()
    monkeypatch.setattr(steps, "_SAY_EVERY_S", 0.0)

    for output in (plain, bar):
        shown = Steps(Console(file=output, force_terminal=output is bar, width=100))
        with shown.showing(), shown.step("audit", "reading") as advance:
            advance(1200, None)

    assert "audit  reading: 1,200\n" in plain.getvalue()
    assert "1,200" in bar.getvalue()


def test_a_bar_says_that_its_step_failed() -> None:
    output = io.StringIO()
    shown = Steps(Console(file=output, force_terminal=True, width=100))

    with pytest.raises(RuntimeError), shown.showing(), shown.step("int4", "GPTQ"):
        raise RuntimeError

    assert "failed" in output.getvalue()
