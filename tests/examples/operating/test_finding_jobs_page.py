"""docs/operating/finding-jobs.md and docs/api/jobs-list.md: every example does what the pages say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bitladder.overview.worker_list import WorkerState
from tests.conftest import ROOT, Stack, wait_until
from tests.page_examples import run_python, run_shell

PAGE, API_PAGE = "docs/operating/finding-jobs.md", "docs/api/jobs-list.md"


def workers(stack: Stack) -> list[dict[str, object]]:
    return list(stack.http.get("/v1/workers").json()["data"])


def test_the_examples_do_what_the_pages_say(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack()
    stack.intake()
    process = stack.worker("int4")
    wait_until(lambda: workers(stack)[0]["slots"] == 16, "the worker has reported")
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{stack.environment['PATH']}")

    run_python(API_PAGE, stack, at_least=15)["intake"].close()
    (printed,) = run_shell(PAGE, stack)

    lines = printed.splitlines()
    listed = [json.loads(line) for line in lines if line.startswith("{")]
    (worker,) = [line.split("\t") for line in lines if line.startswith("smollm2.int4.")]
    assert [row["tags"] for row in listed] == [["nightly"]] * 3
    assert worker[1:3] == ["int4", "ready"]
    assert int(worker[4]) == process.pid
    assert "default\t0\t0\t1" in printed


def test_the_page_says_what_each_state_of_a_worker_means() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for state in WorkerState:
        assert f"| {state} | " in text
