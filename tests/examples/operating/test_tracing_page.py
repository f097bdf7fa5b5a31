"""docs/operating/tracing.md and logs.md, as their readers would run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Stack, wait_until
from tests.examples.operating.otlp_collector import Collector
from tests.page_examples import run_shell

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_the_pages_on_traces_and_logs_find_a_request_by_trace_and_by_id(
    make_stack: Callable[..., Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    collector = Collector()
    stack = make_stack(BITLADDER_TRACING__ENABLED="true", BITLADDER_TRACING__ENDPOINT=collector.url)
    with Path("intake.log").open("wb") as stack.output:
        stack.intake()
    with Path("worker.log").open("wb") as stack.output:
        stack.worker("int4")
    run_shell("docs/operating/tracing.md", stack)
    wait_until(lambda: len(collector.of_trace(TRACE)) == 4, "the trace has come")
    (printed,) = run_shell("docs/operating/logs.md", stack)
    collector.stop()

    assert [span.name for span in collector.of_trace(TRACE)] == ["submit", "wait", "execute", "deliver"]
    lines = [json.loads(line) for line in printed.splitlines()]
    requeued, *_ = [line for line in lines if line["event"] == "job requeued"]
    named = {"job_id", "request_id", "trace_id", "model", "tier", "worker"}
    assert named <= requeued.keys()
    assert {line["trace_id"] for line in lines} == {requeued["trace_id"]}
    assert "echo:fault" not in Path("worker.log").read_text(encoding="utf-8")
