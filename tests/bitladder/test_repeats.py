"""What repeats in a log is written once and counted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bitladder.logs import repeats
from bitladder.logs.repeats import MAX_KINDS, MAX_NAMED, Repeats
from tests.conftest import ROOT, wait_until

Lines = list[dict[str, Any]]


class Log:
    """A log with a limit, whose lines are kept."""

    def __init__(self) -> None:
        self.limit = Repeats()
        self.written: Lines = []
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                self.limit,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=lambda *_: self,
        )
        self.log = structlog.get_logger()

    def msg(self, line: str) -> None:
        self.written.append(json.loads(line))

    debug = info = warning = error = critical = msg


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.limit.flush()
    log.limit.flush()  # so that no timer goes on
    structlog.reset_defaults()


def test_a_warning_that_repeats_is_written_once_and_then_counted(log: Log) -> None:
    for _ in range(42):
        log.log.warning("claim failed", error="Connection refused", worker="w1")
    before = list(log.written)
    log.limit.flush()

    line = {"event": "claim failed", "level": "warning", "error": "Connection refused", "worker": "w1"}
    assert before == [line]
    assert log.written == [line, line | {"repeated": 41}]


def test_the_count_is_written_at_the_end_of_the_window_even_when_nothing_else_is(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "WINDOW_S", 0.2)
    for _ in range(3):
        log.log.error("engine did not start", error="no memory")

    wait_until(lambda: len(log.written) == 2, "the count is there")
    assert log.written[1]["repeated"] == 2


def test_while_it_goes_on_there_is_a_line_for_each_window(log: Log) -> None:
    for _ in range(3):
        for _ in range(10):
            log.log.warning("claim failed", error="refused")
        log.limit.flush()

    assert [line.get("repeated") for line in log.written] == [None, 9, 10, 10]


def test_what_ended_a_window_ago_is_written_at_once_when_it_begins_again(log: Log) -> None:
    log.log.warning("claim failed", error="refused")
    log.limit.flush()
    log.log.warning("claim failed", error="refused")

    assert [line.get("repeated") for line in log.written] == [None, None]


@pytest.mark.parametrize(
    "other",
    [
        {"event": "lease not renewed", "error": "refused", "level": "warning"},
        {"event": "claim failed", "error": "timed out", "level": "warning"},
        {"event": "claim failed", "error": "refused", "level": "error"},
        {"event": "claim failed", "error": "refused", "level": "warning", "model": "m2"},
    ],
)
def test_another_event_or_error_is_another_line(log: Log, other: dict[str, str]) -> None:
    log.log.warning("claim failed", error="refused")
    getattr(log.log, other.pop("level"))(other.pop("event"), **other)

    assert len(log.written) == 2


def test_numbers_and_the_ids_of_requests_tell_no_lines_apart(log: Log) -> None:
    for number in range(5):
        log.log.warning(
            "request refused", error=f"{number} jobs wait at 0x7f{number}", request_id=f"r{number}", ms=number
        )
    log.limit.flush()

    assert [line.get("repeated") for line in log.written] == [None, 4]
    assert "request_id" not in log.written[1]


def test_lines_about_jobs_are_counted_whatever_their_level_and_the_count_names_some(log: Log) -> None:
    for number in range(234):
        log.log.info("job requeued", job_id=f"job-{number}", reason="engine_busy")
    log.limit.flush()

    first, count = log.written
    assert first["job_id"] == "job-0"
    assert count["repeated"] == 233
    assert count["job_ids"] == [f"job-{number}" for number in range(1, MAX_NAMED + 1)]
    assert "job_id" not in count


def test_each_line_that_tells_of_a_state_is_written(log: Log) -> None:
    for _ in range(3):
        log.log.info("worker ready")
        log.log.info("worker not ready")

    assert len(log.written) == 6


def test_a_traceback_is_written_once_and_not_kept(log: Log) -> None:
    for _ in range(3):
        try:
            raise ValueError("odd")
        except ValueError:
            log.log.exception("engine watch broke")
    log.limit.flush()

    assert [("exception" in line, line.get("repeated")) for line in log.written] == [(True, None), (False, 2)]


def test_a_flood_of_different_lines_is_limited_too(log: Log) -> None:
    names = [f"{chr(97 + first)}{chr(97 + second)}" for first in range(26) for second in range(26)]
    for name in names:
        log.log.warning("odd", name=name)
    log.limit.flush()

    assert len(log.written) == MAX_KINDS + 2
    assert log.written[-1]["repeated"] == len(names) - MAX_KINDS - 1


def test_what_was_counted_is_written_at_the_end_of_a_process_that_may_start_no_threads(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    for _ in range(3):
        log.log.warning("claim failed")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    log.limit.flush()

    assert [line.get("repeated") for line in log.written] == [None, 2]


# Objects that log when they are collected, as asyncio's tasks do whose error was not retrieved; collected at every few
# allocations, so that it happens at each place of the code.
COLLECTED = """
import gc, structlog
from bitladder.logs.setup import configure_logs

configure_logs()
log = structlog.get_logger()

class Noisy:
    def __init__(self):
        self.me = self
    def __del__(self):
        log.error("never retrieved", job_id="x")

for allocations in range(5, 20):
    gc.set_threshold(allocations)
    for number in range(100):
        Noisy()
        log.warning("claim failed", job_id=str(number))
"""


def test_a_line_may_come_from_an_object_that_is_collected_while_another_line_is_counted() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", COLLECTED], capture_output=True, text=True, timeout=30, check=False, cwd=ROOT
    )

    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    counts = {line["event"]: line.get("repeated") for line in lines}
    assert (ended.returncode, counts["claim failed"]) == (0, 1499)
    assert counts["never retrieved"] > 1000


def test_an_error_is_written_however_many_kinds_of_warnings_there_are(log: Log) -> None:
    for number in range(2 * MAX_KINDS):
        log.log.warning("odd", name="x" * number)
    log.log.critical("uncaught exception")
    for number in range(2 * MAX_KINDS):
        log.log.error("broken", name="x" * number)

    told = [(line["event"], line.get("name", "")) for line in log.written if line["level"] != "warning"]
    assert told == [("uncaught exception", ""), *(("broken", "x" * number) for number in range(2 * MAX_KINDS))]
