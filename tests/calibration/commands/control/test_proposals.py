"""Proposals at a real intake: applied, taken back exactly, and refused where somebody else was there in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from calibration.commands.app import main
from calibration.control.proposals.proposal import Change, Undo, new_proposal
from calibration.control.proposals.proposal_folder import ProposalStore
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
        at_intake = ("--url", stack.url) if arguments[0] in ("apply", "undo") else ()
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
