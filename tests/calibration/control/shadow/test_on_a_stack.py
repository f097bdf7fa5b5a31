"""A shadow beside real processes: what it labels, when it keeps off, and what a kill leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibration.control.losses import read_labels
from calibration.control.shadow.progress_file import LABELS
from tests.conftest import ROOT, Stack, wait_until

pytestmark = pytest.mark.stack
SLOTS = 4


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    """Two tiers with four slots each, and an intake that captures all prompts."""
    configuration = (ROOT / "bitladder.toml").read_text().replace("slots = 16", f"slots = {SLOTS}")
    (tmp_path / "bitladder.toml").write_text(configuration)
    stack = make_stack(
        BITLADDER_CONFIG=str(tmp_path / "bitladder.toml"),
        BITLADDER_CAPTURE__SHARE="1",
        BITLADDER_CAPTURE__FOLDER=str(tmp_path / "capture"),
        BITLADDER_ECHO__TTFT_MS="20",
        BITLADDER_ECHO__TOKENS_PER_S="2000",
    )
    stack.intake()
    stack.worker("int4")
    stack.worker("fp8")
    return stack


def ask(stack: Stack, prompt: str, **headers: str) -> None:
    body = {"model": "smollm2", "prompt": prompt, "max_tokens": 8}
    assert stack.http.post("/v1/completions", json=body, headers=headers).status_code == 200


def captured(tmp_path: Path) -> int:
    lines = [line for path in (tmp_path / "capture").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sum('"served"' in line for line in lines)


def shadow(stack: Stack, tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "calibration", "shadow", "--out", str(tmp_path / "shadow"), "--share", "1"]
    return subprocess.Popen(
        [*command, "--url", stack.url, "--leave-free", "0.25", "--json", *options],
        cwd=ROOT,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def figures_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    return process.returncode


def labels(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "shadow" / LABELS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def shadow_jobs(stack: Stack, *states: str) -> list[dict[str, Any]]:
    query: dict[str, str | int] = {"tag": "shadow", "limit": 500}
    page = stack.http.get("/v1/jobs", params=query | ({"state": ",".join(states)} if states else {})).json()
    jobs: list[dict[str, Any]] = page["data"]
    return jobs


def test_low_tier_answers_get_labels_that_tune_reads_and_a_second_pass_finds_nothing_new(
    stack: Stack, tmp_path: Path
) -> None:
    for number in range(4):
        ask(stack, f"count w{number} to a hundred")
    ask(stack, "the reference has served this one", **{"X-Min-Tier": "fp8"})
    stack.http.post("/v1/completions", json={"model": "smollm2", "prompt": "echo:fault"})
    wait_until(lambda: captured(tmp_path) >= 5, "what was served is captured")

    metrics = tmp_path / "shadow.prom"
    first = figures_of(shadow(stack, tmp_path, "--metrics", str(metrics)))
    second = figures_of(shadow(stack, tmp_path))

    lines = labels(tmp_path)
    assert sorted(line["served_by"] for line in lines) == ["fp8", *["int4"] * 4]
    assert all(line["tiers"]["int4"]["answer"]["kl"] >= 0 for line in lines if line["served_by"] == "int4")
    assert len(read_labels(tmp_path / "shadow" / LABELS, ("int4", "fp8"), "answer.kl")[0]) == 4
    assert first["tiers"]["int4"]["labels"] == 4
    assert first["all_traffic"]["labels"] == 5
    assert first["savings"]["requests"] == 4
    assert first["prompts"]["skipped"] == {"unserved": 1}
    assert (second["prompts"]["seen"], second["pass"]["labelled"]) == (6, 0)  # its own requests are not captured
    assert {job["lane"] for job in shadow_jobs(stack)} == {"batch"}
    assert len(shadow_jobs(stack)) == first["usage"]["today"]["requests"]
    assert 'bitladder_shadow_labels_total{tier="int4"} 4.0' in metrics.read_text()


def waiting(stack: Stack) -> int:
    tiers = stack.http.get("/v1/queues").json()["data"][0]["tiers"]
    return sum(queue["depth"] for tier in tiers for queue in tier["queues"] if queue["lane"] == "normal")


def at_fp8(stack: Stack, *states: str) -> list[str]:
    return [job["id"] for job in shadow_jobs(stack, *states) if job["floor"] == "fp8"]


def burst(stack: Stack) -> None:  # ten seconds of work for four slots
    body = {"model": "smollm2", "prompt": f"echo:slow {'on and ' * 60}", "max_tokens": 60}
    headers = {"X-Min-Tier": "fp8", "X-Tags": "burst"}
    for _ in range(80):
        stack.http.post("/v1/jobs", json=body, headers=headers).raise_for_status()


def end_burst(stack: Stack) -> None:
    for job in stack.http.get("/v1/jobs", params={"tag": "burst", "state": "queued", "limit": 500}).json()["data"]:
        stack.http.delete(f"/v1/jobs/{job['id']}")
    wait_until(lambda: waiting(stack) == 0, "nobody waits")


def test_no_request_is_claimed_while_an_interactive_job_waits(stack: Stack, tmp_path: Path) -> None:
    for number in range(40):
        ask(stack, f"count w{number} to a hundred")
    wait_until(lambda: captured(tmp_path) >= 40, "what was served is captured")
    burst(stack)
    process = shadow(stack, tmp_path, "--every", "1s", "--max-wait", "1s")
    assert process.stdout is not None
    assert "interactive jobs wait" in json.loads(process.stdout.readline())["pass"]["ended"]
    assert shadow_jobs(stack) == []

    end_burst(stack)
    wait_until(lambda: bool(at_fp8(stack, "running")), "the tiers idle, and the shadow begins")
    burst(stack)
    wait_until(lambda: not at_fp8(stack, "queued", "running"), "what was sent is taken back", 5)
    sent = at_fp8(stack)
    for _ in range(20):
        assert waiting(stack)
        assert at_fp8(stack, "queued", "running") == []
    assert at_fp8(stack) == sent
    end_burst(stack)
    wait_until(lambda: len(at_fp8(stack)) > len(sent), "the shadow goes on")
    assert end(process) == 0
    assert shadow_jobs(stack, "queued", "running") == []


@pytest.mark.long
def test_a_kill_in_the_middle_exceeds_no_budget_and_repeats_no_label(stack: Stack, tmp_path: Path) -> None:
    for number in range(6):
        ask(stack, f"echo:slow count w{number} to a hundred")
    wait_until(lambda: captured(tmp_path) >= 6, "what was served is captured")

    for count in (1, 2):
        process = shadow(stack, tmp_path, "--budget-requests", "14")
        wait_until(lambda count=count: len(labels(tmp_path)) >= count, "a label is written")  # type: ignore[misc]
        process.kill()
        process.communicate()
    figures = figures_of(shadow(stack, tmp_path, "--budget-requests", "14"))

    assert figures["pass"]["ended"].startswith("budget: requests: ")
    assert len(shadow_jobs(stack)) <= figures["usage"]["today"]["requests"] <= 14
    assert 2 <= len(labels(tmp_path)) < 6

    figures = figures_of(shadow(stack, tmp_path, "--budget-requests", "100"))
    jobs = [line["job"] for line in labels(tmp_path)]
    assert figures["prompts"]["waiting"] == 0
    assert len(jobs) == len(set(jobs)) == 6


@pytest.mark.long
def test_two_shadows_do_not_work_in_one_folder(stack: Stack, tmp_path: Path) -> None:
    ask(stack, "count to a hundred")
    first = shadow(stack, tmp_path, "--every", "1h")
    wait_until((tmp_path / "shadow" / LABELS).exists, "the first one works")
    second = shadow(stack, tmp_path)

    assert "another shadow works in --out" in second.communicate(timeout=30)[1]
    assert second.returncode == 2
    assert end(first) == 0
