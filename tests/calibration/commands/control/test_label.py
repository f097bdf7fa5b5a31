"""The command against a running stack: labels, its estimate, what it says of faults, and a run that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibration.commands.app import main
from tests.conftest import ROOT, Stack, wait_until

pytestmark = pytest.mark.stack
FAST = {"BITLADDER_ECHO__TTFT_MS": "1", "BITLADDER_ECHO__TOKENS_PER_S": "20000"}


def serve(make_stack: Callable[..., Stack], **more: str) -> Stack:
    stack = make_stack(**FAST | more)
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    return stack


def write_prompts(folder: Path, count: int = 12, **more: Any) -> Path:  # noqa: ANN401
    path = folder / "prompts.jsonl"
    rows = [
        {"prompt": f"say {number} and {number + 1} again", "source": f"s{number % 3}", "kind": "numbers"} | more
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(prompts: Path, stack: Stack) -> list[str]:
    config = ["--config", str(ROOT / "bitladder.toml")]
    return [
        str(prompts),
        "--reference",
        "fp8",
        "--tiers",
        "int4,int8",
        "--url",
        stack.url,
        "--answer-tokens",
        "8",
        *config,
    ]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["label", *arguments])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_prompt_gets_a_line_without_its_text_and_a_second_run_asks_nothing(
    make_stack: Callable[..., Stack], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = serve(make_stack)
    prompts, out = write_prompts(tmp_path, check={"contains": "and"}), tmp_path / "labels"
    arguments = [*options(prompts, stack), "-o", str(out)]
    status, shown, said = run(capsys, *arguments, "--dry-run", "--json")
    guess = json.loads(shown)["estimate"]
    assert (status, guess["prompts"], guess["requests"]) == (0, 12, 12 * (7 + 3))
    assert "estimate: 12 prompts: about" in said
    assert not (out / "labels.jsonl").exists()

    status, shown, _ = run(capsys, *arguments, "--json")
    report, lines = json.loads(shown), read(out / "labels.jsonl")
    jobs = stack.http.get("/v1/jobs", params={"tag": "label", "limit": 200}).json()["data"]
    run(capsys, *arguments)
    again = stack.http.get("/v1/jobs", params={"tag": "label", "limit": 200}).json()["data"]

    assert (status, report["labels"], len(lines), len({line["id"] for line in lines})) == (0, 12, 12, 12)
    for line in lines:
        assert line["features"]["chat"] == 1
        answer = {"kl": 0.0, "flips": 0.0, "first_divergence": 8, "tokens": 8, "kl_halves": [0.0, 0.0]}
        assert line["tiers"]["int4"]["answer"] == answer | {
            "repeated": 0.0
        }  # the echo engine is the same at every tier
        assert line["tiers"]["fp8"]["task"] == {"wrong": 0, "rule": "contains"}
        assert line["tiers"]["int8"]["own"]["tokens"] == 8
    assert report["tiers"]["int4"]["means"]["task.wrong"]["n"] == 12
    assert {(job["lane"], job["floor"] == job["tier"]) for job in jobs} == {("batch", True)}
    assert len(again) == len(jobs)
    kept = b"".join(path.read_bytes() for path in out.iterdir())
    assert not [secret for secret in (b"say 3 and", b'"answer":[') if secret in kept]
    with prompts.open("a") as file:
        file.write(json.dumps({"text": "please echo:fault now"}) + "\n")
    status, _, said = run(capsys, *arguments)
    assert (status, len(read(out / "labels.jsonl"))) == (1, 12)
    assert "1 of 13 prompts could not be labelled; a next run tries them again" in said


def test_a_prompt_may_be_labelled_along_several_answers(
    make_stack: Callable[..., Stack], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack, out = serve(make_stack), tmp_path / "labels"
    arguments = [*options(write_prompts(tmp_path, check={"contains": "and"}), stack), "-o", str(out)]
    run(capsys, *arguments)
    status, shown, _ = run(capsys, *arguments, "--answers", "3", "--dry-run", "--json")
    guess = json.loads(shown)
    assert (status, guess["to_label"], guess["estimate"]["requests"]) == (0, 12, 24 * 5)  # the first ones are there

    status, shown, _ = run(capsys, *arguments, "--answers", "3", "--json")
    report, lines = json.loads(shown), read(out / "labels.jsonl")

    assert (status, report["labels"], len(lines), report["settings"]["answers"]) == (0, 12, 12, 3)
    for line in lines:
        assert line["tiers"]["int4"]["answer"] == {
            "kl": 0.0, "flips": 0.0, "first_divergence": 8, "tokens": 24, "repeated": 0.0,
            "kl_answers": [0.0] * 3, "flips_answers": [0.0] * 3,
        }  # fmt: skip
        assert line["tiers"]["int4"]["task"] == {"wrong": 0, "rule": "contains"}
        assert line["tiers"]["int8"]["own"]["tokens"] == 8
    for more, message in (
        (["--temperature", "0"], "--answers must be 1 with --temperature 0, got 3"),
        (["--answers", "65"], "Input should be less than or equal to 64"),
    ):
        status, _, said = run(capsys, *arguments, "--answers", "3", *more)
        assert (status, message in " ".join(said.replace("│", "").split())) == (2, True)


def test_what_cannot_be_asked_is_an_error_before_anything_is(
    make_stack: Callable[..., Stack], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = make_stack()
    stack.intake()
    arguments = [*options(write_prompts(tmp_path), stack), "-o", str(tmp_path / "labels")]
    for more, message in (
        (["--tiers", "int4,int2"], "tier 'int2' must be one of int4, int8, fp8"),
        (["--tiers", "fp8"], "--tiers must name other tiers than --reference"),
        (["--top", "64"], "--top must be at most 20 at a running stack, got 64"),
    ):
        status, _, said = run(capsys, *arguments, *more)
        assert status == 2
        assert message in " ".join(said.split())
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.jsonl").write_text("mine")
    status, _, said = run(capsys, *arguments)
    assert status == 2
    assert "labels.jsonl is no labelling run's" in " ".join(said.split())


@pytest.mark.long
def test_a_run_that_is_killed_goes_on_and_ends_with_the_lines_of_one_that_was_not(
    make_stack: Callable[..., Stack], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = serve(make_stack, BITLADDER_ECHO__TTFT_MS="20")
    arguments, killed = options(write_prompts(tmp_path, count=16), stack), tmp_path / "killed"
    command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", "label", *arguments, "-o", str(killed)]
    journal = killed / "journal.jsonl"
    for records in (3, 14, 27):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_until(lambda: journal.exists() and _count(journal) >= records, f"{records} records")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
    with journal.open("ab") as file:
        file.write(b'{"record":"tier","id":"cut o')
    status, _, said = run(capsys, *arguments, "-o", str(killed))
    run(capsys, *arguments, "-o", str(tmp_path / "whole"))

    assert status == 0
    assert "was cut off" in said
    assert (killed / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    keys = [(row["record"], row["id"], row.get("tier")) for row in read(journal)]
    assert len(keys) == len(set(keys)) == 16 * 3


def _count(path: Path) -> int:
    time.sleep(0.01)
    return path.read_bytes().count(b"\n")
