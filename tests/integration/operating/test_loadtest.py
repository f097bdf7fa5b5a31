"""bitladder loadtest against a real stack of echo workers."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack, wait_until
from tests.warm_start import BITLADDER

COMMAND = ("bitladder.cli.main", "loadtest", "--json")


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="1000", BITLADDER_ECHO__TTFT_MS="5")
    stack.intake()
    for tier in ("int4", "int8"):
        stack.worker(tier)
    return stack


def loadtest(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return BITLADDER.run(*COMMAND, "--url", stack.url, *arguments, env=stack.environment)


def test_all_ways_of_asking_are_measured_and_judged(stack: Stack, tmp_path: Path) -> None:
    pairs, modes = tmp_path / "pairs.json", "chat-stream,chat,completions-stream,completions,jobs"
    targets = ("--target", "p95=20s,errors=0,ttft_p95=20s,throughput=1", "--slo", "e2e=20s")

    done = loadtest(stack, "--rate", "40", "--duration", "1500ms", "--modes", modes, *targets, "--pairs", str(pairs))

    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    count = report["requests"]["answered"]
    assert count == report["requests"]["sent"] > 30
    assert set(report["by_mode"]) == set(modes.split(","))
    assert set(report["by_tier"]) == {"int4", "int8"}  # by the policy `article`, entropy above 4.5 goes to int8
    assert report["by_tier"]["int8"]["mean_entropy"] > 4.5 > report["by_tier"]["int4"]["mean_entropy"]
    assert report["latency"]["itl"]["count"] > count  # of the streams alone
    assert report["cost"]["per_request"] > 0
    assert report["shares"]["good"] == 1
    assert len(json.loads(pairs.read_text(encoding="utf-8"))) == count
    assert [target["met"] for target in report["targets"]] == [True] * 4


def test_a_missed_target_and_refusals_end_with_status_1(stack: Stack) -> None:
    slow = loadtest(stack, "--concurrency", "3", "--max-requests", "9", "--target", "p50=1ms")
    refused = loadtest(stack, "--model", "nobody", "--max-requests", "3", "--rate", "100")

    assert (slow.returncode, json.loads(slow.stdout)["requests"]["sent"]) == (1, 9)
    report = json.loads(refused.stdout)
    assert (refused.returncode, report["errors"]) == (1, {"model_not_found": 3})
    assert "nobody" in report["messages"]["model_not_found"]
    assert "all --max-requests 3 were sent after" in refused.stderr


def test_ctrl_c_ends_with_the_report_so_far_and_leaves_no_job(stack: Stack) -> None:
    arguments = (
        "--url",
        stack.url,
        "--rate",
        "50",
        "--duration",
        "5m",
        "--output-tokens",
        "400",
        "--modes",
        "jobs,chat",
    )
    with tempfile.TemporaryFile() as output:
        process = BITLADDER.start(*COMMAND, *arguments, env=stack.environment, stdout=output, stderr=output)
        wait_until(lambda: depth(stack) > 0, "jobs run")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        output.seek(0)
        report = json.loads(output.read().decode().partition("\n}")[0] + "\n}")

    assert report["interrupted"] is True
    assert report["requests"]["unfinished"] > 0
    assert report["shares"]["errors"] == 0
    wait_until(lambda: depth(stack) == 0, "what was under way is cancelled", 10)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--url", "http://[::1"], "--url must be as http://127.0.0.1:8000, got 'http://[::1'"),
        (["--url", "foo"], "--url must be as http://127.0.0.1:8000, got 'foo'"),
        (["--pairs", "/"], "--pairs must be a file that can be written, got '/'"),
        (["--timeout", "0s"], "--timeout must be longer than 0, got '0s'"),
        (["--duration", "0"], "--duration must be longer than 0, got '0'"),
    ],
)
def test_what_would_spoil_a_run_is_refused_before_it(
    make_stack: Callable[..., Stack], arguments: list[str], expected: str
) -> None:
    done = BITLADDER.run(*COMMAND, *arguments, env=make_stack().environment)

    assert (done.returncode, done.stderr) == (2, f"bitladder: {expected}\n")


def test_other_machines_are_not_loaded_by_accident(make_stack: Callable[..., Stack]) -> None:
    for url in ("http://192.0.2.1:8000", "http://intake.example.org"):
        done = BITLADDER.run(*COMMAND, "--url", url, env=make_stack().environment)

        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "another machine: pass --yes" in done.stderr


def depth(stack: Stack) -> int:
    tiers = stack.http.get("/v1/queues").raise_for_status().json()["data"][0]["tiers"]
    return int(sum(tier["depth"] + tier["in_flight"] for tier in tiers))
