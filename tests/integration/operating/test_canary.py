"""`bitladder calibrate canary` on a running stack: who breaks loses the share, who is as good gets everything."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack, wait_until

pytestmark = pytest.mark.stack
CONFIG = """
[echo]
ttft_ms = 1
tokens_per_s = 5000
[models.small]
[[models.small.tiers]]
name = "int8"
[models.third]
[[models.third.tiers]]
name = "int8"
[models.next]
[[models.next.tiers]]
name = "int8"
"""
FOR_IT = {"X-Canary": "true"}
FINE = ("--margin", "0.1", "--at-once", "2", "--propose")
COMMAND = [sys.executable, "-m", "bitladder.cli.main", "calibrate", "canary"]


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    config = tmp_path / "bitladder.toml"
    config.write_text(CONFIG, encoding="utf-8")
    lines = [json.dumps({"prompt": f"say {number} and more words", "chat": False}) for number in range(400)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    stack = make_stack(BITLADDER_CONFIG=str(config))
    stack.intake()
    stack.worker("int8")
    return stack


def candidate(stack: Stack, fault_ratio: float = 0.0) -> None:
    stack.environment["BITLADDER_ECHO__FAULT_RATIO"] = str(fault_ratio)
    stack.start("worker", "--model", "next", "--tier", "int8")

    def is_live() -> bool:
        rows = {row["model"]: row["tiers"] for row in stack.http.get("/v1/queues").json()["data"]}
        return int(rows["next"][0]["live_workers"]) == 1

    wait_until(is_live, "the candidate's worker is live")


def start(stack: Stack, folder: Path, *more: str) -> subprocess.Popen[str]:
    what = ("--model", "small", "--candidate", "next", "--prompts", str(folder / "prompts.jsonl"), "--poll", "0.3")
    arguments = ["run", "-o", str(folder / "canary"), "--url", stack.url, *what, "--answer-tokens", "4", *more]
    return subprocess.Popen(
        [*COMMAND, *arguments, "--json"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], returncode: int) -> dict[str, Any]:
    out, error = process.communicate(timeout=90)
    assert process.returncode == returncode, error
    report: dict[str, Any] = json.loads(out)
    return report


def share(stack: Stack) -> dict[str, Any] | None:
    rows = {row["key"]: row["value"] for row in stack.http.get("/v1/settings").json()["data"]}
    canary: dict[str, Any] | None = rows["models.small.canary"]
    return canary


def set_share(stack: Stack, model: str, share: float) -> None:
    change = {"models.small.canary": {"model": model, "share": share}}
    stack.http.patch("/v1/settings", json={"set": change}).raise_for_status()


def test_a_candidate_that_breaks_loses_its_share_and_it_is_said_how_many_it_touched(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack, fault_ratio=0.8)
    process = start(stack, tmp_path, "--max-failed", "1", "--share", "0.5")
    wait_until(lambda: (share(stack) or {}).get("share") == 0.5, "the share is given", 20)
    sent = [
        stack.http.post("/v1/jobs", json={"model": "small", "prompt": "a"}, headers=FOR_IT).json()["model"]
        for _ in range(5)
    ]

    report = ended(process, 1)

    assert (report["phase"], report["decision"]) == ("rolled back", "worse")
    assert report["pairs"] <= 40
    assert report["failed"]["candidate"] > report["failed"]["now"] == 0
    assert report["touched"] == sent.count("next")
    assert (share(stack) or {})["share"] == 0
    page = (tmp_path / "canary" / "report.html").read_text(encoding="utf-8")
    assert "worse by more than 0.02" in page
    assert "6,271 pairs" in page


@pytest.mark.long
def test_a_candidate_whose_last_worker_goes_loses_its_share_though_no_intake_answers_when_it_ends(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack)
    process = start(stack, tmp_path, "--margin", "0.001")
    pairs = tmp_path / "canary" / "pairs.jsonl"
    wait_until(lambda: pairs.exists() and pairs.read_bytes().count(b"\n") >= 4, "some pairs are made", 30)
    stack.processes[-1].kill()
    report = ended(process, 1)
    assert (report["why"], (share(stack) or {})["share"]) == ("next has no live worker", 0)

    (tmp_path / "canary").rename(tmp_path / "former")
    candidate(stack)
    process = start(stack, tmp_path, "--margin", "0.001")
    wait_until(lambda: pairs.exists() and pairs.read_bytes().count(b"\n") >= 4, "some pairs are made", 30)
    intake = stack.processes[0]
    intake.kill()
    intake.wait(10)
    subprocess.run(
        [*COMMAND, "stop", "-o", str(tmp_path / "canary"), "--url", stack.url], env=stack.environment, check=True
    )
    errors = process.stderr
    assert errors
    wait_until(lambda: "could not be taken back yet" in errors.readline(), "it tries", 30)
    stack.intake()

    assert ended(process, 1)["why"] == "stopped by an operator"
    assert (share(stack) or {})["share"] == 0

    state = tmp_path / "canary" / "canary.json"  # as after a kill behind the change of the share
    state.write_text(state.read_text().replace('"phase": "rolled back"', '"phase": "running"').replace(
        '"ending": null', '"ending": "rolled back"'
    ))  # fmt: skip
    again = ended(start(stack, tmp_path, "--margin", "0.001"), 1)
    assert (again["phase"], again["why"]) == ("rolled back", "stopped by an operator")
    set_share(stack, "third", 0.2)
    (tmp_path / "canary").rename(tmp_path / "stopped")
    _, error = (second := start(stack, tmp_path)).communicate(timeout=60)
    assert (second.returncode, "model third has a share of small already" in error) == (2, True)


@pytest.mark.long
def test_a_canary_that_is_killed_goes_on_where_it_was_and_a_candidate_that_is_as_good_gets_everything(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack)
    pairs, proposals = tmp_path / "canary" / "pairs.jsonl", tmp_path / "proposals"
    process = start(stack, tmp_path, *FINE, str(proposals))
    wait_until(lambda: (share(stack) or {}).get("share") == 0.1, "the share is given", 20)
    body = {"model": "small", "prompt": "a"}
    wait_until(lambda: stack.http.post("/v1/route", json=body, headers=FOR_IT).json()["model"] == "next", "it is taken")
    answers = [stack.http.post("/v1/completions", json=body, headers=FOR_IT).headers for _ in range(5)]
    assert [headers["x-canary-of"] for headers in answers] == ["small"] * 5
    wait_until(lambda: pairs.exists() and pairs.read_bytes().count(b"\n") >= 6, "some pairs are made", 30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = pairs.read_bytes().count(b"\n")
    with pairs.open("ab") as file:
        file.write(b'{"id": "cut')

    report = ended(start(stack, tmp_path, *FINE, str(proposals)), 0)

    assert (report["phase"], report["decision"], report["mean_difference"]) == ("awaits promotion", "fine", 0)
    lines = [json.loads(line)["id"] for line in pairs.read_text(encoding="utf-8").splitlines()]
    assert len(set(lines)) == len(lines) == report["pairs"] > done
    assert report["touched"] == 5
    assert (share(stack) or {})["share"] == 0.1

    (proposal,) = proposals.glob("*-promote-*.json")
    apply = ["proposals", "apply", proposal.stem, "--proposals", str(proposals), "--url", stack.url]
    done_by = subprocess.run(
        [*COMMAND[:-1], *apply], env=stack.environment, capture_output=True, text=True, check=False
    )
    assert done_by.returncode == 0, done_by.stderr
    assert share(stack) == {"model": "next", "share": 1.0, "salt": "", "drawn_by": "request"}
    again = subprocess.Popen(
        [*COMMAND, "promote", "-o", str(tmp_path / "canary"), "--url", stack.url, "--json"],
        env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert ended(again, 0)["phase"] == "promoted"
