"""What is said of a run on the way, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from calibration.sample.bookmark import SampleProgress
from calibration.sample.reading import Reading


@pytest.mark.parametrize("terminal", [True, False])
def test_the_name_of_a_stranger_s_object_steers_nothing(terminal: bool) -> None:
    output = io.StringIO()
    progress = SampleProgress(request={}, started_at="", unit="logs[/x]\x1b[2J.jsonl", seen=1200, skipped={"empty": 3})

    with Reading(Console(file=output, force_terminal=terminal, width=200)) as reading:
        reading.show(progress)

    last = output.getvalue().splitlines()[-1]
    assert "1,200 read (" in last
    assert last.endswith(r"/s), 3 skipped, last logs[/x]\x1b[2J.jsonl")
    assert "\x1b[2J" not in output.getvalue()


def test_the_time_that_is_left_is_said_where_the_size_of_the_source_is_known() -> None:
    output = io.StringIO()
    sizes = {"1.jsonl": 500, "2.jsonl": 100, "3.jsonl": 300}  # the first one was read by an earlier run

    with Reading(Console(file=output, width=200), sizes) as reading:
        reading._started_s -= 60
        for unit, seen in (("1.jsonl", 500), ("2.jsonl", 600)):
            reading.show(SampleProgress(request={}, started_at="", unit=unit, seen=seen))

    assert "600 read (2/s), 3 min left, 0 skipped, last 2.jsonl" in output.getvalue()
