"""calibration/terminal/progress.py: long work says how far it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from calibration.terminal import progress as steps
from calibration.terminal.progress import Steps, TimeLeft, time_left


def run(output: io.StringIO, *, is_terminal: bool) -> None:
    shown = Steps(Console(file=output, force_terminal=is_terminal, width=100))
    with shown.showing(), shown.step("int4", "GPTQ", expected_s=None) as advance:
        for done in range(1, 4):
            advance(done, 3)


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(steps, "_SAY_EVERY_S", 0.0)

    run(output, is_terminal=False)

    lines = [line.strip() for line in output.getvalue().splitlines()]
    assert lines[0] == "int4  GPTQ ..."
    assert lines[1:4] == ["int4  GPTQ: 1 of 3, 0 s left", "int4  GPTQ: 2 of 3, 0 s left", "int4  GPTQ: 3 of 3"]


def test_the_time_that_is_left_goes_by_the_speed_so_far() -> None:
    assert time_left(60.0, 41, 164) == ", 3 min left"
    assert time_left(60.0, 0, 164) == time_left(60.0, 41, None) == ""


def test_a_step_of_the_next_tier_is_expected_to_take_as_long_as_the_last_one() -> None:
    output = io.StringIO()
    shown = Steps(Console(file=output, width=100))

    for tier in ("bf16", "int4"):
        with shown.step(tier, "measuring answers", expected_s=None):
            pass

    assert "bf16  measuring answers ...\n" in output.getvalue()
    assert "int4  measuring answers ... (about 0 s)\n" in output.getvalue()


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
        with shown.showing(), shown.step("audit", "reading", expected_s=None) as advance:
            advance(1200, None)

    assert "audit  reading: 1,200\n" in plain.getvalue()
    assert "1,200" in bar.getvalue()


def test_a_bar_says_that_its_step_failed() -> None:
    output = io.StringIO()
    shown = Steps(Console(file=output, force_terminal=True, width=100))

    with pytest.raises(RuntimeError), shown.showing(), shown.step("int4", "GPTQ", expected_s=None):
        raise RuntimeError

    assert "failed" in output.getvalue()


def test_a_step_that_cannot_count_says_how_long_it_will_take() -> None:
    plain, bar = io.StringIO(), io.StringIO()

    for output in (plain, bar):
        shown = Steps(Console(file=output, force_terminal=output is bar, width=100))
        with shown.showing(), shown.step("int4", "measuring", expected_s=400):
            pass

    assert "int4  measuring ... (about 7 min)" in plain.getvalue()
    assert "7 min left" in bar.getvalue()


@pytest.mark.parametrize(
    ("elapsed_s", "done", "said"),
    [
        pytest.param(10, 0, "30 s left", id="what was expected"),
        pytest.param(50, 0, "any moment now", id="never a time below nothing"),
        pytest.param(10, 2, "4 min left", id="its own speed, once there is one"),
    ],
)
def test_the_time_that_is_left(elapsed_s: float, done: int, said: str) -> None:
    now = iter([0.0, *([elapsed_s] * 100)])
    progress = Progress(get_time=lambda: next(now))
    task = progress.add_task("", total=100, expected_s=40)
    for count in range(1, done + 1):
        now = iter([count * 2.5, *([elapsed_s] * 100)])
        progress.update(task, completed=count)

    assert str(TimeLeft().render(progress.tasks[0])) == said
