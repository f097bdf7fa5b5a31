"""Passes of the whole: what is read counts once, hostile lines stop nothing, and each kind proposes what it may."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from calibration.commands.app import main
from calibration.control.drift.drift_state import STATE, load_state
from calibration.control.proposals.applying import dismiss
from calibration.control.proposals.author import time_now
from calibration.control.proposals.proposal import Proposal
from calibration.control.proposals.proposal_folder import ProposalStore
from calibration.control.tuning import Question
from tests.calibration.control.drift.streams import features, label, policy, requests, write_lines
from tests.conftest import ROOT, free_port, wait_until

RANDOM = 11
# A level that small permutations show: what is tested here is what a pass does, not how rarely it errs.
FAST = ("--level", "0.2", "--window", "100", "--horizon", "300")


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    random = np.random.default_rng(RANDOM)
    return write_lines(tmp_path / "labels.jsonl", [label(row, random) for row in features(random, 400)])


def arguments(reference: Path, *more: str) -> list[str]:
    folder = reference.parent
    where = ("--state", str(folder / "drift"), "--proposals", str(folder / "proposals"))
    return ["drift", str(reference), *where, *FAST, *more]


class Command:
    """The command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, options: list[str]) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main([*options, "--json"])
        shown = self._capsys.readouterr()
        return int(ended.value.code or 0), json.loads(shown.out) if shown.out else {"error": shown.err}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def proposed(reference: Path) -> list[Proposal]:
    return ProposalStore(reference.parent / "proposals").all()[0]


def test_features_that_move_ask_for_labels_and_do_not_break_the_promise(reference: Path, command: Command) -> None:
    random, folder = np.random.default_rng(1), reference.parent
    stream = write_lines(folder / "requests.jsonl", requests(features(random, 250)))
    options = arguments(
        reference, "--requests", str(stream), "--policy", str(policy(folder)),
        "--shadow", str(write_lines(folder / "shadow.jsonl", [label(row, random) for row in features(random, 20)])),
        "--metrics", str(folder / "drift.prom"), "--page", str(folder / "drift.html"),
    )  # fmt: skip

    status, before = command(options)
    write_lines(stream, requests(features(random, 250, digits=0.5)))
    then, after = command(options)

    assert (status, then, before["moved"], before["proposals"]) == (0, 0, [], [])
    assert {alarm["feature"] for alarm in after["moved"]} == {"digits"}
    assert all(alarm["since"] > 190 for alarm in after["moved"])
    (proposal,) = proposed(reference)
    assert (proposal.kind, proposal.change, proposal.author) == ("labels", None, "drift: features")
    assert "digits 0.2" in proposal.reason
    assert not after["losses"]["is_broken"]
    metrics = (folder / "drift.prom").read_text()
    assert 'bitladder_drift_moved{feature="digits"} 1.0' in metrics
    assert 'bitladder_drift_moved{feature="entropy"} 0.0' in metrics
    assert "bitladder_promise_broken 0.0" in metrics
    page = (folder / "drift.html").read_text()
    assert "<td>digits</td>" in page.replace("\n", "")
    assert "It is not refuted." in page
    assert "data:image/png;base64," in page
    assert "bitladder_drift_requests_total 500.0" in metrics


def test_losses_that_break_the_promise_revoke_it_and_propose_a_limit_that_they_prove(
    reference: Path, command: Command
) -> None:
    random, folder = np.random.default_rng(2), reference.parent
    # Of prompts with more digits, int4 loses more than it was predicted to: features are as they were.
    lines = [label(row, random) for row in features(random, 350)]
    for line in lines:
        if line["served_by"] == "int4" and line["features"]["digits"] > 0.15 and random.random() < 0.5:
            line["tiers"]["int4"]["answer"]["kl"] = 0.9
    options = arguments(
        reference, "--requests", str(write_lines(folder / "requests.jsonl", requests(features(random, 120)))),
        "--shadow", str(write_lines(folder / "shadow.jsonl", lines)), "--policy", str(policy(folder)),
        "--policy-name", "loss", "--metrics", str(folder / "drift.prom"),
    )  # fmt: skip

    status, answer = command(options)
    again, _ = command(options)

    assert (status, again) == (1, 1)
    assert answer["losses"]["is_broken"]
    assert answer["losses"]["alarm"]["risk"] > 0.1
    (proposal,) = proposed(reference)
    assert (proposal.kind, proposal.state) == ("threshold", "open")
    assert proposal.change is not None
    assert 0.05 < proposal.change.settings["policies.loss.limit"] < 0.2
    assert "bitladder_promise_broken 1.0" in (folder / "drift.prom").read_text()
    # A limit that is in force begins anew: what was labelled under the other says nothing of it.
    _, fresh = command([*options[:-4], "--policy", str(policy(folder, 0.1))])
    assert (fresh["losses"]["is_broken"], fresh["losses"]["labels"]) == (False, 0)


@pytest.mark.parametrize("is_former", [False, True])
def test_bets_go_on_where_they_were_and_begin_with_what_a_former_state_has(
    is_former: bool, reference: Path, command: Command
) -> None:
    random, folder = np.random.default_rng(2), reference.parent
    lines = [label(row, random) for row in features(random, 300)]
    for line in lines[120:]:
        line["tiers"]["int4"]["answer"]["kl"] = 0.9 if random.random() < 0.2 else 0.0
    shadow = write_lines(folder / "shadow.jsonl", lines[:130])
    options = arguments(reference, "--shadow", str(shadow), "--policy", str(policy(folder)))
    assert command(options)[0] == 0
    if is_former:  # as it was written when there were no bets, and a loss was too much or not
        state = msgspec.msgpack.decode(zlib.decompress((folder / "drift" / STATE).read_bytes()))
        del state["losses"]["capitals"]
        for item in state["losses"]["labels"]:
            item["is_over"], item["over"] = bool(item["is_over"]), [bool(over) for over in item["over"]]
        (folder / "drift" / STATE).write_bytes(zlib.compress(msgspec.msgpack.encode(state)))

    write_lines(shadow, lines[130:])
    status, resumed = command(options)
    _, whole = command([*options, "--state", str(folder / "other")])

    assert (status, resumed["losses"]["labels"]) == (1, 300)
    assert resumed["losses"]["alarm"] == whole["losses"]["alarm"]
    assert abs(resumed["losses"]["alarm"]["since"] - 121) < 15


def test_a_promised_mean_is_held_against_clipped_losses(reference: Path, command: Command) -> None:
    random, folder = np.random.default_rng(2), reference.parent
    words = Question(
        costs={}, measure="answer.kl", threshold=0.5, alpha=0.05, delta=0.05, promise="mean", seed=0, risk="mean"
    ).words
    lines = [label(row, random) for row in features(random, 800)]
    for line in lines:  # no loss is large, and the mean is 0.04 or so, then 0.12 where int4 serves
        line["tiers"]["int4"]["answer"]["kl"] = random.uniform(0, 0.1)
    for line in lines[400:]:
        line["tiers"]["int4"]["answer"]["kl"] += 0.08 if line["features"]["digits"] < 0.15 else 0.0
    lines[0]["tiers"]["int4"]["answer"]["kl"] = 1e6
    shadow = write_lines(folder / "shadow.jsonl", lines[:400])
    options = arguments(reference, "--shadow", str(shadow), "--policy", str(policy(folder, words=words)))

    kept, before = command(options)
    write_lines(shadow, lines[400:])
    broken, after = command([*options, "--policy-name", "loss"])

    assert (kept, broken) == (0, 1)
    assert before["losses"]["in_words"] == "all requests lose at most 0.05 on average, each up to 0.5 (answer.kl)"
    assert 0.03 < before["losses"]["risk"] < 0.05
    assert after["losses"]["alarm"]["label"] > 400
    assert "the last requests lose 0.0" in after["proposals"][0]["reason"]
    assert command([*options, "--alpha", "0.6"])[1]["error"].endswith(
        "--alpha must be above 0 and below 0.5, got 0.6\n"
    )


def test_what_somebody_dismissed_comes_back_for_another_alarm_only(reference: Path, command: Command) -> None:
    random, store = np.random.default_rng(1), ProposalStore(reference.parent / "proposals")
    stream = write_lines(reference.parent / "requests.jsonl", requests(features(random, 250, digits=0.5)))
    options = arguments(reference, "--requests", str(stream))
    (first,) = command(options)[1]["proposals"]
    dismiss(store, first["id"], None, at=time_now(), author="somebody", note="a load test")

    assert command(options)[1]["proposals"] == []
    table = features(random, 100)
    table[:, 0] += 1
    write_lines(stream, requests(table))
    (later,) = command(options)[1]["proposals"]
    assert (later["id"] != first["id"], "entropy" in later["reason"]) == (True, True)


def test_a_file_counts_once_however_it_is_named(
    reference: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, folder = np.random.default_rng(2), reference.parent
    shadow = write_lines(folder / "shadow.jsonl", [label(row, random) for row in features(random, 20)])
    options = arguments(reference, "--policy", str(policy(folder)), "--shadow")
    monkeypatch.chdir(folder)

    answers = [command([*options, name])[1] for name in ("shadow.jsonl", str(shadow))]
    status, refused = command([*options, str(shadow), "--requests", "shadow.jsonl"])

    assert [answer["requests"] for answer in answers] == [20, 20]
    assert (status, "is in both --requests and --shadow" in refused["error"]) == (2, True)


HOSTILE = [
    "", "\n", "{\n", "[1]\n", "null\n", "1e999\n", '"a"\n', "\x00\xff\n", "{}\n", '{"features": null}\n',
    '{"features": {"entropy": 1}}\n', '{"features": {"entropy": NaN, "digits": 0, "punctuation": 0, "tokens": 1}}\n',
    '{"features": {"entropy": "4", "digits": 0, "punctuation": 0, "tokens": 1}}\n', "[" * 5000 + "\n",
    '{"features": {"entropy": 4, "digits": -1, "punctuation": 0, "tokens": 1}}\n', '{"id": "a", "served": "int4"}\n',
    '{"features": {"entropy": 1e300, "digits": 0, "punctuation": 0, "tokens": true}}\n',
]  # fmt: skip


def test_hostile_lines_are_counted_by_reason_and_a_cut_one_is_read_when_it_is_whole(
    reference: Path, command: Command
) -> None:
    good = requests(features(np.random.default_rng(1), 3))
    whole = json.dumps({"prompt": "How many digits has 12345?", "endpoint": "/v1/completions"})
    stream = write_lines(reference.parent / "requests.jsonl", [*HOSTILE, *good, whole[:20]])
    options = arguments(reference, "--requests", str(stream))

    _, cut = command(options)
    write_lines(stream, [whole[20:]])
    _, answer = command(options)

    assert (cut["requests"], answer["requests"]) == (3, 4)
    assert answer["skipped"] == {
        "not a JSON object": 8, "no features, and no prompt": 2, "feature tokens is missing": 1,
        "feature entropy is no number from 0 to 1e9": 2, "feature digits is no number from 0 to 1e9": 1,
    }  # fmt: skip


def test_a_killed_command_counts_nothing_twice(reference: Path, command: Command) -> None:
    table = features(np.random.default_rng(5), 2500)
    table[1200:, 1] += 0.2
    stream = write_lines(reference.parent / "requests.jsonl", requests(table[:1000]))
    options = arguments(reference, "--requests", str(stream))
    state = reference.parent / "drift" / STATE
    running = [sys.executable, "-m", "calibration", *options, "--every", "1"]
    process = subprocess.Popen(running, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(state.exists, "the first pass is written down", 90)
    write_lines(stream, requests(table[1000:]))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert load_state(state.parent).features.requests in (1000, 2500)

    _, resumed = command(options)
    whole = [*options, "--state", str(reference.parent / "other"), "--proposals", str(reference.parent / "others")]
    _, expected = command(whole)

    assert resumed["requests"] == 2500
    assert {name: resumed[name] for name in ("moved", "indices", "lines")} == {
        name: expected[name] for name in ("moved", "indices", "lines")
    }
    assert [alarm["feature"] for alarm in resumed["moved"]].count("digits") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name a stream: --requests, --shadow, or both"),
        (["--shadow", "labels.jsonl"], "--shadow needs --policy"),
        (["--requests", "gone"], "there is no file or folder 'gone'"),
        (["--requests", "pyproject.toml", "--level", "0.7"], "--level must be above 0 and below 0.5, got 0.7"),
        (["--requests", "pyproject.toml", "--auto"], "--auto needs --url, --policy-name and --shadow"),
        (["--requests", "pyproject.toml", "--metrics", "a.txt"], "--metrics must end in .prom"),
        (["--requests", "pyproject.toml", "--policy", "pyproject.toml"], "policy file 'pyproject.toml'"),
    ],
)
def test_what_cannot_be_is_named(options: list[str], words: str, reference: Path, command: Command) -> None:
    status, answer = command([*arguments(reference), *options])

    assert status == 2
    assert words in answer["error"]


def test_a_damaged_state_and_too_small_a_reference_are_named(reference: Path, command: Command) -> None:
    stream = write_lines(reference.parent / "requests.jsonl", requests(features(np.random.default_rng(1), 3)))
    small = write_lines(reference.parent / "small.jsonl", requests(features(np.random.default_rng(1), 20)))
    options = arguments(reference, "--requests", str(stream))
    command(options)
    (reference.parent / "drift" / STATE).write_bytes(b"x")

    assert "cannot be read" in command(options)[1]["error"]
    assert "20 labels, expected at least 200" in command(["drift", str(small), *options[2:]])[1]["error"]


def test_a_folder_that_cannot_be_written_is_named(reference: Path, command: Command) -> None:
    stream = write_lines(reference.parent / "requests.jsonl", requests(features(np.random.default_rng(1), 3)))
    options = arguments(reference, "--requests", str(stream), "--state", str(stream / "state"))

    status, answer = command(options)

    assert status == 2
    assert f"--state: cannot write to '{stream}/state'" in answer["error"]


def test_an_intake_that_does_not_answer_is_no_broken_promise(reference: Path, command: Command) -> None:
    stream = write_lines(reference.parent / "requests.jsonl", requests(features(np.random.default_rng(1), 3)))
    url = f"http://127.0.0.1:{free_port()}"
    options = arguments(reference, "--requests", str(stream), "--policy-name", "loss", "--url", url)

    status, answer = command(options)
    running = [sys.executable, "-m", "calibration", *options, "--every", "1"]
    process = subprocess.Popen(running, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    waits = [process.stderr.readline(), process.stderr.readline()]
    process.terminate()
    process.communicate()

    assert (status, "cannot reach the intake" in answer["error"]) == (6, True)
    assert all("the next pass is in 1 s" in line for line in waits), waits
