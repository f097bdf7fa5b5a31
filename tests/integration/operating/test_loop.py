"""`bitladder calibrate loop` on a running stack: from prompts to a promoted policy, through its own commands."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Stack, wait_until

pytestmark = pytest.mark.stack
TO_BE_SIGNED = 3
CONFIG = """
[echo]
ttft_ms = 1
tokens_per_s = 5000
[models.small]
[[models.small.tiers]]
name = "int4"
[[models.small.tiers]]
name = "int8"
[policies.tuned-a]
kind = "learned"
file = "tuned-a.json"
"""
LOOP = """
prompts = "prompts.jsonl"
proposals = "proposals"
url = "{url}"
[policies]
tuned-a = "tuned-a.json"
[label]
reference = "int8"
tiers = "int4"
answer-tokens = 8
at-once = 16
[tune]
cost = ["int4=0.3", "int8=1"]
threshold = 1.0
alpha = 0.2
[ablate]
resamples = 20
[canary]
model = "small"
margin = 0.4
at-once = 4
poll = 0.3
answer-tokens = 4
"""
WORDS = (
    "queue",
    "worker",
    "tier",
    "claim",
    "answer",
    "token",
    "12",
    "345",
    "{}",
    ";",
    "ä",
    "?",
    "(",
    ")",
    "json",
    "\n",
)


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    (tmp_path / "bitladder.toml").write_text(CONFIG, encoding="utf-8")
    learned = json.loads((ROOT / "examples" / "learned_policy.json").read_text())
    learned["tiers"] = {"int4": learned["tiers"]["int4"]}
    (tmp_path / "tuned-a.json").write_text(json.dumps(learned))
    chance = random.Random(0)  # noqa: S311  (chance with a seed is what is wanted)
    lines = [
        {"prompt": " ".join(chance.choices(WORDS, k=chance.randint(5, 60))), "source": f"s{at % 8}", "chat": False}
        for at in range(160)
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    stack = make_stack(BITLADDER_CONFIG=str(tmp_path / "bitladder.toml"))
    (tmp_path / "loop.toml").write_text(LOOP.format(url=stack.url), encoding="utf-8")
    stack.intake()
    stack.worker("int4")
    stack.worker("int8")
    return stack


def loop(stack: Stack, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "calibration", "loop", *arguments]
    return subprocess.run(command, cwd=folder, env=stack.environment, capture_output=True, text=True, timeout=240)


def policy_of(stack: Stack) -> object:
    rows = {row["key"]: row["value"] for row in stack.http.get("/v1/settings").json()["data"]}
    return rows["models.small.policy"]


@pytest.mark.long
def test_a_loop_goes_from_prompts_to_a_promoted_policy_once_its_page_is_signed(stack: Stack, tmp_path: Path) -> None:
    before = (tmp_path / "tuned-a.json").read_bytes()
    command = [sys.executable, "-m", "calibration", "loop", "run", "-o", "loop"]
    cut = subprocess.Popen(command, cwd=tmp_path, env=stack.environment, stdout=subprocess.DEVNULL)
    labels = tmp_path / "loop" / "labels" / "labels.jsonl"
    wait_until(lambda: labels.exists() and labels.read_bytes().count(b"\n") >= 3, "some are labelled", 60)
    cut.send_signal(signal.SIGTERM)
    assert cut.wait(60) == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "loop" / "loop.json").read_text())["steps"]["label"]["outcome"] == "failed"

    waits = loop(stack, tmp_path, "run", "-o", "loop")

    assert waits.returncode == TO_BE_SIGNED, waits.stderr
    assert (tmp_path / "tuned-a.json").read_bytes() == before
    assert policy_of(stack) != "tuned-a"
    assert "loop sign" in waits.stdout

    signed = loop(stack, tmp_path, "sign", "-o", "loop", "--name", "A. Turing", "--json")
    ended = loop(stack, tmp_path, "run", "-o", "loop")

    assert (signed.returncode, ended.returncode) == (0, 0), ended.stderr
    assert json.loads(signed.stdout)["name"] == "A. Turing"
    assert (tmp_path / "tuned-a.json").read_bytes() == (tmp_path / "loop" / "policy.json").read_bytes()
    assert policy_of(stack) == "tuned-a"
    status = json.loads(loop(stack, tmp_path, "status", "-o", "loop", "--json").stdout)
    assert (status["summary"], status["signed"], set(status["steps"].values())) == ("promoted", True, {"done"})
    page = (tmp_path / "loop" / "index.html").read_text()
    assert "A. Turing" in page
    assert "Nothing is lost below" in page  # echo engines answer alike at every tier
