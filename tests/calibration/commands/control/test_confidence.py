"""calibrate confidence: from labels to a file with which a worker starts, and what it says of labels held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitladder.routing.cascade import read_calibration
from calibration.commands.app import main
from calibration.control.predictors.confidence_curve import calibration_error

LADDERS = {"m": ("int4", "int8")}


def label(number: int, margin: float, loss: float, tokens: int = 64) -> dict[str, Any]:
    beginnings = {"8": {"margin": margin, "entropy": 1.0}} if tokens >= 8 else {}
    own = {"margin": margin / 2, "tokens": tokens, "beginnings": beginnings}
    return {"id": str(number), "tiers": {"int4": {"answer": {"kl": loss}, "own": own}}}


def written(folder: Path, lines: list[dict[str, Any]]) -> str:
    file = folder / "labels.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["confidence", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_the_file_says_how_often_an_answer_with_such_a_margin_is_good(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The truth is known: an answer whose margin is m, from 0 to 4, is good with a chance of m / 4."""
    chance = np.random.default_rng(1)
    margins = chance.uniform(0, 4, 4000)
    losses = np.where(chance.random(4000) < margins / 4, 0.1, 0.3)
    labels = written(tmp_path, [label(at, *pair) for at, pair in enumerate(zip(margins, losses, strict=True))])
    out = tmp_path / "cascade.json"
    options = ["-o", out, "--model", "m", "--tier", "int4", "--threshold", 0.2]

    assert run(labels, *options, "--after", 8, "--json") == 0
    figures = json.loads(capfd.readouterr().out)["tiers"]["int4"]
    curve = read_calibration(out.read_bytes(), "c.json", LADDERS).models["m"]["int4"]

    assert curve.after_tokens == 8
    seen = [curve.at(margin) for margin in (0.5, 1, 2, 3, 3.5)]
    assert seen == pytest.approx([0.125, 0.25, 0.5, 0.75, 0.875], abs=0.08)
    assert figures["good"] == pytest.approx(0.5, abs=0.03)
    assert figures["auc"] == pytest.approx(5 / 6, abs=0.02)  # of two uniform margins, by the integral
    assert figures["calibration_error"] < 2 * figures["calibration_error_by_chance"] < 0.06
    assert figures["kept"] == pytest.approx(0.2, abs=0.04)
    assert figures["good_of_kept"] == pytest.approx(0.9, abs=0.03)

    assert run(labels, *options) == 0  # of whole answers, whose margins are half of it
    curve = read_calibration(out.read_bytes(), "c.json", LADDERS).models["m"]["int4"]
    assert curve.after_tokens is None
    assert curve.at(1) == pytest.approx(0.5, abs=0.08)
    assert "4,000" in capfd.readouterr().out


def test_an_answer_that_is_shorter_counts_as_a_whole_and_what_says_nothing_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [label(at, at / 10, at % 2, tokens=4 if at < 20 else 64) for at in range(60)]
    labels = written(tmp_path, [*lines, {"id": "x", "tiers": {"int8": {}}}, {"id": "y", "tiers": {"int4": True}}])

    options = ["--model", "m", "--tier", "int4", "--threshold", 0, "--after", 8, "--json"]
    assert run(labels, "-o", tmp_path / "c", *options) == 0
    figures = json.loads(capfd.readouterr().out)["tiers"]["int4"]
    assert (figures["labels"], figures["left_out"]) == (60, 2)


def test_an_answer_is_judged_by_its_own_loss_where_labels_are_means_of_several(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [label(at, at / 10, 0.1) for at in range(60)]
    for at, line in enumerate(lines):
        line["tiers"]["int4"]["answer"]["kl_answers"] = [0.4, 0.0, 0.0, 0.0] if at % 4 == 0 else [0.0, 0.4, 0.0, 0.0]
    huge = label(60, 1, 0.1)
    huge["tiers"]["int4"]["own"]["margin"] = huge["tiers"]["int4"]["own"]["beginnings"]["8"]["margin"] = 10**400
    options = ["--model", "m", "--tier", "int4", "--threshold", 0.2, "--after", 8, "--json"]

    assert run(written(tmp_path, [*lines, huge]), "-o", tmp_path / "c", *options) == 0
    figures = json.loads(capfd.readouterr().out)["tiers"]["int4"]

    assert figures["good"] == pytest.approx(0.75)
    assert (figures["labels"], figures["left_out"]) == (60, 1)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [label(at, 1, 0.1) for at in range(49)],
            "49 of 49 lines have own.beginnings.8.margin and answer.kl of 'int4'",
        ),
        ([{"tiers": []}], "labels.jsonl:1: expected an object of a label"),
    ],
)
def test_labels_that_say_too_little_are_refused_and_nothing_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], lines: list[dict[str, Any]], words: str
) -> None:
    out = tmp_path / "cascade.json"

    options = ["--model", "m", "--tier", "int4", "--threshold", 0.2, "--after", 8]
    assert run(written(tmp_path, lines), "-o", out, *options) == 2

    assert words in capfd.readouterr().err
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labels = written(tmp_path, [label(at, at, 0.1) for at in range(50)])

    assert run(labels, "-o", f"{labels}/c", "--model", "m", "--tier", "int4", "--threshold", 0.2) == 2
    assert "cannot write --out" in capfd.readouterr().err


def test_confidences_that_came_true_have_no_error() -> None:
    good = np.arange(1000) % 2 == 0

    assert calibration_error(np.full(1000, 0.5), good) == pytest.approx(0)
    assert calibration_error(np.full(1000, 0.9), good) == pytest.approx(0.4)
