"""drift --auto at a real intake: a proven limit is applied within its bounds, once a day, and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from calibration.commands.app import main
from tests.calibration.control.drift.streams import features, label, policy, write_lines
from tests.conftest import ROOT, Stack

pytestmark = pytest.mark.stack


def test_a_proven_limit_is_applied_within_its_bounds_and_taken_back(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = '[policies.loss]\nkind = "learned"\nfile = "policy.json"\n'
    config = tmp_path / "bitladder.toml"
    config.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8") + table)
    form = policy(tmp_path)
    stack = make_stack(BITLADDER_CONFIG=str(config))
    stack.intake()
    random = np.random.default_rng(2)
    reference = write_lines(tmp_path / "labels.jsonl", [label(row, random) for row in features(random, 300)])
    lines = [label(row, random) for row in features(random, 350)]
    for line in lines:
        if line["features"]["digits"] > 0.2 and random.random() < 0.5:
            line["tiers"]["int4"]["answer"]["kl"] = 0.9
    shadow = write_lines(tmp_path / "shadow.jsonl", lines)

    def drift(*more: str) -> tuple[int, dict[str, Any]]:
        where = ("--state", str(tmp_path / "drift"), "--proposals", str(tmp_path / "proposals"), "--level", "0.2")
        with pytest.raises(SystemExit) as ended:
            main([
                "drift", str(reference), "--shadow", str(shadow), "--policy", str(form), "--policy-name", "loss",
                "--url", stack.url, *where, "--json", *more,
            ])  # fmt: skip
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    def live() -> dict[str, Any]:
        data = stack.http.get("/v1/settings", params={"live": "true"}).json()["data"]
        return {row["key"]: row["value"] for row in data}

    status, answer = drift("--auto", "--auto-max-step", "0.05")
    (proposal,) = answer["proposals"]
    assert (status, live()) == (1, {})
    assert "is more than a step of 0.05" in answer["not_applied"][proposal["id"]]

    status, answer = drift("--auto", "--auto-max-step", "0.9")
    assert (status, answer["applied"]) == (1, [proposal["id"]])
    assert live() == {"policies.loss.limit": proposal["change"]["settings"]["policies.loss.limit"]}

    # The limit in force is the intake's now: what was labelled under the other one says nothing of it.
    status, answer = drift("--auto")
    assert (status, answer["losses"]["limit"], answer["losses"]["labels"]) == (0, *live().values(), 0)
    with pytest.raises(SystemExit) as ended:
        main(["proposals", "undo", proposal["id"], "--proposals", str(tmp_path / "proposals"), "--url", stack.url])
    assert (ended.value.code, live()) == (0, {})
