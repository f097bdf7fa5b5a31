"""`bitladder calibrate canary` on a running stack: who breaks loses the share, who is as good gets everything."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bitladder.settings.access import key_hash
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
FINE = ("--margin", "0.1", "--at-once", "2")
SHORT = ("--lease", "6")
EVERYTHING = {"model": "next", "share": 1.0, "salt": "", "drawn_by": "request"}
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


def candidate(stack: Stack, max_tokens: int = 2048) -> None:
    stack.environment["BITLADDER_ECHO__MAX_MODEL_LEN"] = str(max_tokens)  # of its engine: it refuses longer prompts
    stack.start("worker", "--model", "next", "--tier", "int8")

    wait_until(lambda: live_workers(stack) == 1, "the candidate's worker is live")


def listed(stack: Stack, path: str) -> list[dict[str, Any]]:
    answer = stack.http.get(path).json()
    while "data" not in answer:  # Redis was too slow for it: the machine has other things to do
        answer = stack.http.get(path).json()
    rows: list[dict[str, Any]] = answer["data"]
    return rows


def live_workers(stack: Stack) -> int:
    rows = {row["model"]: row["tiers"] for row in listed(stack, "/v1/queues")}
    return int(rows["next"][0]["live_workers"])


def phase(folder: Path) -> str:
    state = folder / "canary" / "canary.json"
    return str(json.loads(state.read_bytes())["phase"]) if state.exists() else ""


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
    out, error = process.communicate(timeout=180)
    assert process.returncode == returncode, error
    report: dict[str, Any] = json.loads(out)
    return report


def share(stack: Stack) -> dict[str, Any] | None:
    rows = {row["key"]: row["value"] for row in listed(stack, "/v1/settings")}
    canary: dict[str, Any] | None = rows["models.small.canary"]
    return canary


def wait_for_a_change(stack: Stack) -> None:
    def revision() -> int:
        return int(stack.http.get("/v1/settings").json()["revision"])

    before = revision()
    wait_until(lambda: revision() > before, "the live settings are changed", 60)


def set_share(stack: Stack, model: str, share: float) -> None:
    change = {"models.small.canary": {"model": model, "share": share}}
    stack.http.patch("/v1/settings", json={"set": change}).raise_for_status()


def test_a_candidate_that_breaks_loses_its_share_and_it_is_said_how_many_it_touched(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack, max_tokens=2)
    process = start(stack, tmp_path, "--max-failed", "1", "--share", "0.5")
    wait_until(lambda: (share(stack) or {}).get("share") == 0.5, "the share is given", 60)
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


def test_a_candidate_that_was_found_fine_and_turns_bad_while_it_waits_for_its_promotion_loses_its_share(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack, max_tokens=40)
    (folder := tmp_path / "captured").mkdir()
    capture(folder / "1.jsonl", "short")
    process = start(stack, tmp_path, *FINE, "--at-once", "4", "--prompts", str(folder))
    wait_until(lambda: phase(tmp_path) == "awaits promotion", "it is found fine", 120)
    assert (share(stack) or {})["share"] == 0.1

    capture(folder / "2.jsonl", "long " * 60)
    report = ended(process, 1)

    assert report["phase"] == "rolled back"
    assert re.fullmatch(r"worse by more than 0.1, \d+ pairs after it was found fine", report["why"])
    assert report["failed"]["candidate"] == 0  # of the pairs that found it fine
    assert 0 < report["waiting"]["failed"]["candidate"] <= 40
    assert (share(stack) or {})["share"] == 0


def capture(file: Path, words: str) -> None:
    lines = [{"model": "small", "endpoint": "/v1/completions", "prompt": f"{number} {words}"} for number in range(60)]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


@pytest.mark.long
def test_a_candidate_whose_last_worker_goes_loses_its_share_though_no_intake_answers_when_it_ends(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack)
    process = start(stack, tmp_path, "--margin", "0.001")
    pairs = tmp_path / "canary" / "pairs.jsonl"
    wait_until(lambda: pairs.exists() and pairs.read_bytes().count(b"\n") >= 4, "some pairs are made", 60)
    stack.processes[-1].kill()
    report = ended(process, 1)
    assert (report["why"], (share(stack) or {})["share"]) == ("next has no live worker", 0)

    (tmp_path / "canary").rename(tmp_path / "former")
    candidate(stack)
    process = start(stack, tmp_path, "--margin", "0.001")
    wait_until(lambda: pairs.exists() and pairs.read_bytes().count(b"\n") >= 4, "some pairs are made", 60)
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
def test_the_share_of_a_canary_that_was_killed_ends_by_itself_and_the_same_call_gives_it_again_and_goes_on(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack)
    pairs = tmp_path / "canary" / "pairs.jsonl"
    process = start(stack, tmp_path, *FINE, *SHORT)
    wait_until(lambda: (share(stack) or {}).get("share") == 0.1, "the share is given", 60)
    body = {"model": "small", "prompt": "a"}
    wait_until(lambda: stack.http.post("/v1/route", json=body, headers=FOR_IT).json()["model"] == "next", "it is taken")
    answers = [stack.http.post("/v1/completions", json=body, headers=FOR_IT).headers for _ in range(5)]
    assert [headers["x-canary-of"] for headers in answers] == ["small"] * 5
    wait_until(lambda: pairs.exists() and pairs.read_bytes().count(b"\n") >= 6, "some pairs are made", 60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = pairs.read_bytes().count(b"\n")
    with pairs.open("ab") as file:
        file.write(b'{"id": "cut')
    wait_until(lambda: share(stack) is None, "nobody prolongs it", 20)
    wait_until(
        lambda: stack.http.post("/v1/route", json=body, headers=FOR_IT).json()["model"] == "small", "it has ended", 3
    )

    report = ended(start(stack, tmp_path, *FINE, *SHORT, "--no-watch"), 0)

    assert (report["phase"], report["decision"], report["mean_difference"]) == ("awaits promotion", "fine", 0)
    lines = [json.loads(line)["id"] for line in pairs.read_text(encoding="utf-8").splitlines()]
    assert len(set(lines)) == len(lines) == report["pairs"] > done
    assert report["touched"] == 5
    wait_until(lambda: share(stack) is None, "nobody prolongs it", 20)
    assert ended(order(stack, tmp_path, "promote"), 0)["phase"] == "promoted"  # it was found fine
    assert share(stack) == EVERYTHING


@pytest.mark.long
def test_a_canary_whose_share_may_not_be_prolonged_any_more_ends(stack: Stack, tmp_path: Path) -> None:
    candidate(stack)
    config, stack.environment["BITLADDER_API_KEY"] = tmp_path / "bitladder.toml", "ops"
    key = f'[auth.keys.ops]\nhash = "{key_hash(b"ops")}"\ntenant = "default"\nscopes = ["submit", "read", "ops"]\n'
    config.write_text(f"{CONFIG}\n{key}", encoding="utf-8")
    stack.http.headers["Authorization"] = "Bearer ops"
    wait_until(lambda: httpx2.get(f"{stack.url}/v1/settings").status_code == 401, "the key is wanted")
    process = start(stack, tmp_path, "--margin", "0.0001", *SHORT)
    wait_until(lambda: (share(stack) or {}).get("share") == 0.1, "the share is given", 60)

    config.write_text(f"{CONFIG}\n{key}".replace('"ops"]', '"ops:read"]'), encoding="utf-8")

    report = ended(process, 1)
    assert "ops:write" in report["why"]
    assert report["phase"] in ("left alone", "rolled back")  # by whether the share had ended by then
    wait_until(lambda: share(stack) is None, "nobody prolongs it", 20)


@pytest.mark.long
def test_a_candidate_that_waits_is_prolonged_until_a_person_or_a_proposal_promotes_it(
    stack: Stack, tmp_path: Path
) -> None:
    candidate(stack)
    proposals = tmp_path / "proposals"
    for promotes in ("person", "proposal"):
        process = start(stack, tmp_path, *FINE, "--lease", "20", "--propose", str(proposals))
        wait_until(lambda: proposals.exists() and any(proposals.glob("*-promote-*.json")), "it is proposed", 60)
        wait_for_a_change(stack)  # its share is prolonged
        assert (share(stack) or {})["share"] == 0.1

        if promotes == "person":
            assert ended(order(stack, tmp_path, "promote"), 0)["phase"] == "promoted"
        else:
            (proposal,) = (path for path in proposals.glob("*-promote-*.json") if "open" in path.read_text())
            apply = ["proposals", "apply", proposal.stem, "--proposals", str(proposals), "--url", stack.url]
            subprocess.run([*COMMAND[:-1], *apply], env=stack.environment, check=True)

        report = ended(process, 0)
        assert (report["phase"], share(stack)) == ("promoted", EVERYTHING)
        assert report["waiting"]["pairs"] > 0
        assert ended(order(stack, tmp_path, "promote"), 0)["phase"] == "promoted"
        (tmp_path / "canary").rename(tmp_path / promotes)
        set_share(stack, "next", 0)
        for file in proposals.iterdir():
            file.unlink()

    process = start(stack, tmp_path, *FINE, "--lease", "20")
    wait_until(lambda: phase(tmp_path) == "awaits promotion", "it is found fine", 120)
    stack.processes[-1].kill()
    report = ended(process, 1)
    assert (report["decision"], report["why"]) == ("fine", "next has no live worker")
    assert (share(stack) or {})["share"] == 0


def order(stack: Stack, folder: Path, order: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, order, "-o", str(folder / "canary"), "--url", stack.url, "--json"],
        env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
