"""drift --auto at a real intake: a proven limit is applied within its bounds, once a day, and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import redis

from calibration.commands.app import main
from calibration.control.drift.drift_proposals import applied_on
from calibration.control.proposals.author import time_now
from calibration.control.proposals.proposal_folder import ProposalStore
from tests.calibration.control.drift.streams import features, label, policy, write_lines
from tests.conftest import ROOT, Stack

pytestmark = pytest.mark.stack


class Case:
    """A stack that routes by a policy, and labels of requests that break its promise."""

    def __init__(self, stack: Stack, folder: Path, form: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.stack, self.shadow, self._folder, self._form, self._capsys = (
            stack,
            folder / "shadow.jsonl",
            folder,
            form,
            capsys,
        )
        self.store, self.random = ProposalStore(folder / "proposals"), np.random.default_rng(2)
        write_lines(folder / "labels.jsonl", self.labels(300))
        lines = self.labels(350)
        for line in lines:
            if line["features"]["digits"] > 0.2 and self.random.random() < 0.5:
                line["tiers"]["int4"]["answer"]["kl"] = 0.9
        write_lines(self.shadow, lines)

    def labels(self, count: int, at: str = "2026-01-01T00:00:00+00:00") -> list[dict[str, Any]]:
        return [label(row, self.random, at=at) for row in features(self.random, count)]

    def drift(self, *more: str) -> tuple[int, dict[str, Any]]:
        where = ("--state", str(self._folder / "drift"), "--proposals", str(self.store.folder), "--level", "0.2")
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([
                "drift", str(self._folder / "labels.jsonl"), "--shadow", str(self.shadow), "--policy", str(self._form),
                "--policy-name", "loss", "--url", self.stack.url, *where, "--json", "--auto", *more,
            ])  # fmt: skip
        return int(ended.value.code or 0), json.loads(self._capsys.readouterr().out)

    def live(self) -> dict[str, Any]:
        data = self.stack.http.get("/v1/settings", params={"live": "true"}).json()["data"]
        return {row["key"]: row["value"] for row in data}

    def decide(self, step: str, proposal_id: str) -> int | str | None:
        with pytest.raises(SystemExit) as ended:
            main(["proposals", step, proposal_id, "--proposals", str(self.store.folder), "--url", self.stack.url])
        return ended.value.code


@pytest.fixture
def case(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Case:
    table = '[policies.loss]\nkind = "learned"\nfile = "policy.json"\n'
    config = tmp_path / "bitladder.toml"
    config.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8") + table)
    form = policy(tmp_path)
    stack = make_stack(BITLADDER_CONFIG=str(config))
    stack.intake()
    return Case(stack, tmp_path, form, capsys)


def test_a_proven_limit_is_applied_within_its_bounds_and_taken_back(case: Case) -> None:
    status, answer = case.drift("--auto-max-step", "0.05")
    (proposal,) = answer["proposals"]
    assert (status, case.live()) == (1, {})
    assert "is more than a step of 0.05" in answer["not_applied"][proposal["id"]]

    status, answer = case.drift("--auto-max-step", "0.9")
    assert (status, answer["applied"]) == (1, [proposal["id"]])
    assert case.live() == {"policies.loss.limit": proposal["change"]["settings"]["policies.loss.limit"]}

    # The limit in force is the intake's now: what was labelled under the other one says nothing of it.
    status, answer = case.drift()
    assert (status, answer["losses"]["limit"], answer["losses"]["labels"]) == (0, *case.live().values(), 0)
    assert (case.decide("undo", proposal["id"]), case.live()) == (0, {})


def test_labels_that_come_late_count_under_no_other_limit(case: Case) -> None:
    lines = case.shadow.read_text(encoding="utf-8")
    (proposal,) = case.drift("--auto-max-step", "0.05")[1]["proposals"]
    assert case.decide("apply", proposal["id"]) == 0

    write_lines(case.shadow, [lines, *case.labels(3, at="2999-01-01T00:00:00+00:00")])
    status, answer = case.drift()
    assert (status, answer["losses"]["labels"]) == (0, 3)

    assert case.decide("undo", proposal["id"]) == 0
    write_lines(case.shadow, [lines])
    status, answer = case.drift()
    assert (status, answer["losses"]["labels"], case.live()) == (0, 0, {})


def test_a_pass_that_was_killed_while_it_applied_is_finished_by_the_next(case: Case) -> None:
    (applied,) = case.drift("--auto-max-step", "0.9")[1]["applied"]
    proposal = case.store.read(applied)
    assert proposal.undo is not None
    undo = msgspec.structs.replace(proposal.undo, revision=None)  # what is known before the intake has answered
    case.store.write(msgspec.structs.replace(proposal, state="open", history=(), undo=undo))

    case.drift()

    noted = case.store.read(applied)
    assert (noted.state, noted.undo, applied_on(time_now()[:10], [noted])) == ("applied", proposal.undo, 1)
