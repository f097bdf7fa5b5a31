"""Proposals at a real intake: applied, taken back exactly, and refused where somebody else was there in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import msgspec
import pytest
import redis

from calibration.commands.app import main
from calibration.control.proposals.proposal import Change, FileChange, Undo, new_proposal
from calibration.control.proposals.proposal_folder import ProposalStore, file_digest
from tests.conftest import ROOT, Stack

pytestmark = pytest.mark.stack
LIMIT = "policies.loss.limit"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def stack(make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path) -> Stack:
    """Return a stack that routes by a learned policy."""
    (tmp_path / "policy.json").write_bytes((ROOT / "examples" / "learned_policy.json").read_bytes())
    table = '[policies.loss]\nkind = "learned"\nfile = "policy.json"\n'
    config = tmp_path / "bitladder.toml"
    config.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8") + table)
    stack = make_stack(BITLADDER_CONFIG=str(config))
    stack.intake()
    return stack


@pytest.fixture
def folder(tmp_path: Path) -> ProposalStore:
    return ProposalStore(tmp_path / "proposals")


def propose(folder: ProposalStore, limit: float, minute: int, was: float | None = None) -> str:
    change = Change(settings={LIMIT: limit, "policy.name": "loss"}, was={} if was is None else {LIMIT: was})
    at = f"2026-11-30T01:{minute}:00Z"
    return folder.add(new_proposal("threshold", "proven", at=at, author="drift", evidence={}, change=change)).id


def live(stack: Stack) -> dict[str, Any]:
    """Return the settings that are set live."""
    data = stack.http.get("/v1/settings", params={"live": "true"}).json()["data"]
    return {row["key"]: row["value"] for row in data}


@pytest.fixture
def run(stack: Stack, folder: ProposalStore, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one of the commands, and returns its exit status and what it shows."""

    def call(*arguments: str) -> tuple[int, str]:
        where = ("--proposals", str(folder.folder))
        at_intake = ("--url", stack.url) if arguments[0] in ("apply", "undo", "dismiss") else ()
        with pytest.raises(SystemExit) as ended:
            main(["proposals", *arguments, *where, *at_intake])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

    return call


def test_a_limit_reaches_the_intake_and_the_way_back_is_exact(stack: Stack, folder: ProposalStore, run: Run) -> None:
    # Nothing of it was live: undo unsets.
    first = propose(folder, 0.01, 10)
    status, out = run("apply", first)
    assert (status, live(stack)) == (0, {LIMIT: 0.01, "policy.name": "loss"}), out
    assert f"calibrate proposals undo {first}" in out
    assert run("apply", first)[0] == 2  # it is applied
    assert run("undo", first)[0] == 0
    assert live(stack) == {}
    history = stack.http.get("/v1/settings/history").json()["data"]
    assert [entry["reason"].split(":")[0] for entry in history] == [f"undo of proposal {first}", f"proposal {first}"]

    # Some of it was: undo sets that again, and leaves what others changed beside it.
    stack.http.patch("/v1/settings", json={"set": {LIMIT: 0.05}})
    second = propose(folder, 0.02, 20, was=0.05)
    assert run("apply", second)[0] == 0
    stack.http.patch("/v1/settings", json={"set": {"policy.entropy_bits": 5.0}})
    assert run("undo", second)[0] == 0
    assert live(stack) == {LIMIT: 0.05, "policy.entropy_bits": 5.0}
    listed = json.loads(run("list", "--json", "--all")[1])
    assert {item["id"]: item["state"] for item in listed} == {first: "undone", second: "undone"}


def test_it_is_refused_where_somebody_else_changed_the_same_and_nothing_is_changed(
    stack: Stack, folder: ProposalStore, run: Run
) -> None:
    stack.http.patch("/v1/settings", json={"set": {LIMIT: 0.05}})
    stale = propose(folder, 0.03, 30, was=0.07)
    status, out = run("apply", stale)
    assert (status, "is 0.05, and was 0.07 when this was proposed" in out) == (1, True), out
    assert (folder.read(stale).state, live(stack)) == ("open", {LIMIT: 0.05})

    applied = propose(folder, 0.04, 40)
    assert run("apply", applied)[0] == 0
    stack.http.patch("/v1/settings", json={"set": {LIMIT: 0.04}, "reason": "mine"})  # the same value, but theirs
    before = live(stack)
    status, out = run("undo", applied)
    assert (status, live(stack), "mine" in out) == (1, before, True), out
    assert f"somebody else has changed it since {applied} was applied" in out

    # What the intake refuses leaves the proposal open, with nothing to take back.
    wrong = propose(folder, -1.0, 50)
    status, out = run("apply", wrong)
    assert (status, LIMIT in out, folder.read(wrong).undo, live(stack)) == (1, True, None, before)


def test_a_call_whose_answer_was_lost_is_made_again_and_does_nothing_twice(
    stack: Stack, folder: ProposalStore, run: Run
) -> None:
    proposal_id = propose(folder, 0.01, 10)
    # Killed between the change and its note: what takes it back is written, and the settings say by which proposal.
    undo = Undo(unset=(LIMIT, "policy.name"))
    folder.write(msgspec.structs.replace(folder.read(proposal_id), undo=undo))
    order = {"set": {LIMIT: 0.01, "policy.name": "loss"}, "reason": f"proposal {proposal_id}: proven"}
    stack.http.patch("/v1/settings", json=order)

    assert [run(verb, proposal_id)[0] for verb in ("dismiss", "apply", "undo")] == [2, 0, 0]

    assert (live(stack), len(stack.http.get("/v1/settings/history").json()["data"])) == ({}, 2)


class KillsAtTheChange(BaseHTTPRequestHandler):
    """An intake's endpoint that kills whoever orders a change, which then never comes; what is read is true."""

    intake: str
    process: subprocess.Popen[bytes]

    def do_GET(self) -> None:
        answer = httpx2.get(self.intake + self.path)
        self.send_response(answer.status_code)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.content)

    def do_PATCH(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    def log_message(self, *_: object) -> None: ...


def test_one_that_was_killed_before_its_change_and_came_too_late_then_can_be_dismissed(
    stack: Stack, folder: ProposalStore, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"old")
    folder.folder.mkdir()
    folder.keep("new", b"new")
    before, after = file_digest(file), file_digest(folder.folder / "new")
    assert before
    assert after
    files = (FileChange(path=str(file), content="new", before=before, after=after),)
    change = Change(settings={LIMIT: 0.01}, was={LIMIT: None}, files=files)
    proposed = new_proposal("promote", "proven", at="2026-11-30T01:10:00Z", author="loop", evidence={}, change=change)
    proposal_id = folder.add(proposed).id
    with ThreadingHTTPServer(("127.0.0.1", 0), KillsAtTheChange) as server:
        Thread(target=server.serve_forever).start()
        order = [
            "apply",
            proposal_id,
            "--proposals",
            str(folder.folder),
            "--url",
            f"http://127.0.0.1:{server.server_port}",
        ]
        process = subprocess.Popen([sys.executable, "-m", "calibration", "proposals", *order], cwd=ROOT)
        KillsAtTheChange.intake, KillsAtTheChange.process = stack.url, process
        assert process.wait(60) == -signal.SIGKILL
        server.shutdown()
    assert (folder.read(proposal_id).state, file.read_bytes(), live(stack)) == ("open", b"new", {})

    # Somebody else is there first: it cannot be applied any more, and what it had put in place is taken back.
    stack.http.patch("/v1/settings", json={"set": {LIMIT: 0.05}, "reason": "mine"})
    assert [run(verb, proposal_id)[0] for verb in ("apply", "dismiss")] == [1, 0]
    noted = folder.read(proposal_id)
    assert (noted.state, noted.undo, file.read_bytes(), live(stack)) == ("dismissed", None, b"old", {LIMIT: 0.05})


def test_one_that_was_killed_behind_its_change_is_known_by_what_others_left_of_it(
    stack: Stack, folder: ProposalStore, run: Run
) -> None:
    proposal_id = propose(folder, 0.01, 10, was=None)
    folder.write(msgspec.structs.replace(folder.read(proposal_id), undo=Undo(unset=(LIMIT, "policy.name"))))
    order = {"set": {LIMIT: 0.01, "policy.name": "loss"}, "reason": f"proposal {proposal_id}: proven"}
    stack.http.patch("/v1/settings", json=order)
    stack.http.patch("/v1/settings", json={"set": {LIMIT: 0.05}, "reason": "mine"})

    statuses = [run(verb, proposal_id)[0] for verb in ("dismiss", "apply", "undo")]
    assert (statuses, live(stack)) == ([2, 0, 1], {LIMIT: 0.05, "policy.name": "loss"})  # 0.05 is theirs
    stack.http.patch("/v1/settings", json={"unset": [LIMIT, "policy.name"]})
    assert (run("undo", proposal_id)[0], folder.read(proposal_id).state) == (0, "undone")
