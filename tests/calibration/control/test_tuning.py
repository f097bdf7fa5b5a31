"""calibrate tune: from a file of labels to a policy that routing evaluates, and a promise that holds."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bitladder.decision import Score
from bitladder.policy_forms import LearnedForm, read_form
from bitladder.routing.policies.learned import bound, inputs_of
from calibration.artifacts.digest import text_id
from calibration.commands.app import main
from calibration.control import losses
from calibration.control.losses import Labels, read_labels
from calibration.control.predictors.registry import PREDICTORS
from calibration.control.scores import columns_of, fit_ridge, inputs_for, predict
from calibration.control.tuning import Question, divided, promised_limit, tune
from calibration.errors import InputError

COSTS = ("--predictor", "ridge", "--no-compare", "--cost", "low=0.3", "--cost", "middle=0.6", "--cost", "top=1")


def line(chance: np.random.Generator, number: int, **losses: dict[str, float]) -> dict[str, Any]:  # Any: JSON
    """Return a label whose loss on the low tier grows with its digits."""
    digits = float(chance.random())
    return {
        "source": f"source {number % 10}",
        "features": {"digits": digits, "tokens": float(chance.integers(10, 1000)), "entropy": 4.5},
        "tiers": {"low": {"kl": 0.2 * digits * float(chance.random() + 0.5)}, "middle": {"kl": 0.01}, **losses},
    }


def write(path: Path, lines: list[dict[str, Any]]) -> Path:  # Any: JSON
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    return path


def labels_of(count: int, seed: int) -> Labels:
    chance = np.random.default_rng(seed)
    features = np.column_stack([chance.random(count), chance.integers(1, 5000, count)])
    return Labels(
        names=("digits", "tokens"),
        features=features,
        losses={"low": 0.2 * features[:, 0] * (0.5 + chance.random(count))},
        sources=tuple(f"source {number % 10}" for number in range(count)),
    )


QUESTION = Question(
    costs={"low": 0.3, "top": 1.0},
    measure="kl",
    threshold=0.15,
    alpha=0.05,
    delta=0.05,
    promise="high-probability",
    seed=0,
    predictor="ridge",
)


def run(*arguments: object) -> int:
    """Run `bitladder calibrate` in this process; returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_routing_computes_the_value_that_was_fitted() -> None:
    labels = labels_of(300, seed=1)
    inputs = inputs_for(labels.names, labels.features)
    columns = columns_of(inputs, labels.names, labels.features)
    fitted = fit_ridge(columns, labels.losses["low"])
    form = LearnedForm(limit=0.1, inputs=inputs, tiers={"low": fitted})

    read = read_form(msgspec.json.encode(form), "policy.json")

    assert isinstance(read, LearnedForm)
    # Far beyond the labels, too: what is fitted is held between the losses that were seen.
    others = np.random.default_rng(2).uniform(0, 1e6, size=(100, 2))
    expected = predict(fitted, columns_of(inputs, labels.names, others))
    scores = [Score(digits=digits, tokens=tokens) for digits, tokens in others.tolist()]
    assert [bound(read.tiers["low"], inputs_of(read.inputs, score)) for score in scores] == pytest.approx(expected)
    assert expected.max() <= labels.losses["low"].max()


@pytest.mark.parametrize(("risk", "bound", "alpha", "lowest"), [("share", 0.15, 0.05, 0.6), ("mean", 0.5, 0.06, 0.6)])
def test_the_promise_holds_on_traffic_that_was_never_labelled(
    risk: str, bound: float, alpha: float, lowest: float
) -> None:
    question = dataclasses.replace(QUESTION, risk=risk, threshold=bound, alpha=alpha)
    traffic = labels_of(20_000, seed=99)
    broken, low = 0, []
    for seed in range(60):
        labels = labels_of(500, seed)
        fitted_on, promised_on, _ = divided(labels.groups, seed)
        fit = PREDICTORS["ridge"].fit(labels, labels.losses, ["low"], fitted_on, seed)
        losses = np.array([labels.losses["low"], np.zeros(len(labels))]).T
        bounds = fit.losses(labels, np.arange(len(labels)))
        _, _, limit = promised_limit(bounds, losses, (fitted_on, promised_on), question)
        assert limit is not None
        is_low = fit.losses(traffic, np.arange(len(traffic)))[:, 0] <= limit
        risks = question.bounded(traffic.losses["low"]) * (bound if risk == "mean" else 1.0)
        broken += float((is_low * risks).mean()) > alpha
        low.append(float(is_low.mean()))

    assert broken <= 7  # a true 5 % breaks 8 or more of 60 in 1 % of runs
    assert np.mean(low) > lowest


def test_a_policy_is_written_and_what_it_does_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = np.random.default_rng(5)
    labels = write(tmp_path / "labels.jsonl.gz", [line(chance, number, dear={"kl": 0.02}) for number in range(600)])

    options = ("--cost", "dear=0.9", "--threshold", "0.15", "--measure", "kl")
    assert run("tune", labels, "-o", tmp_path / "policy.json", *COSTS, *options) == 0

    shown = capsys.readouterr().out
    assert "left out: dear: middle costs 0.6 of dear's 0.9, and dear loses no less (+0.01 a request" in shown
    assert "labels: beyond noise)" in shown
    assert "promised, with confidence 0.95: over all traffic like these labels, at most 0.05 of requests" in shown
    form = read_form((tmp_path / "policy.json").read_bytes(), "policy.json")
    assert isinstance(form, LearnedForm)
    assert list(form.tiers) == ["low", "middle"]


def test_labels_that_cannot_promise_it_write_nothing_and_say_how_many_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = np.random.default_rng(5)
    labels = write(tmp_path / "labels.jsonl.gz", [line(chance, number) for number in range(100)])

    status = run("tune", labels, "-o", tmp_path / "policy.json", *COSTS, "--threshold", "0.15", "--measure", "kl",
                 "--alpha", "0.01")  # fmt: skip

    assert status == 1
    # 299 without a loss, of which 40 are there; and 40 % of all labels are for the promise.
    said = " ".join(capsys.readouterr().err.split())
    assert "no policy is written: 40 labels cannot promise, with confidence 0.95, that at most 0.01 of requests" in said
    assert "about 648 more labels would prove it" in said
    assert not (tmp_path / "policy.json").exists()


def test_whether_an_answer_is_right_is_a_loss_beyond_the_top_s_own(tmp_path: Path) -> None:
    rows = [{"task": "t", "prompt": f"What is {number} + 1?", "weak": number % 2 == 0, "strong": number % 4 != 1}
            for number in range(100)]  # fmt: skip

    labels, skipped = read_labels(write(tmp_path / "labels.gz", rows), ("weak", "strong"), "kl")
    _, figures = tune(
        labels, dataclasses.replace(QUESTION, costs={"weak": 0.1, "strong": 1.0}, threshold=0.5, alpha=0.9)
    )

    assert skipped == 0
    assert labels.losses["weak"].mean() == 0.5
    assert figures["held_out"]["policies"]["all weak"]["over"] == pytest.approx(0.25, abs=0.2)
    assert figures["held_out"]["policies"]["all strong"]["over"] == 0


def test_a_promise_is_of_requests_which_get_one_answer_where_labels_are_means_of_several(tmp_path: Path) -> None:
    chance = np.random.default_rng(4)
    rows = []
    for number in range(600):
        of_each = chance.permutation([0.4, 0.0, 0.0, 0.0]).tolist()  # one answer in four loses more than 0.15
        entry = {"kl": 0.1, "kl_answers": of_each}
        rows.append(line(chance, number, low=entry))

    labels, _ = read_labels(write(tmp_path / "labels.gz", rows), ("low", "top"), "kl")
    form, figures = tune(labels, QUESTION)

    assert set(labels.losses["low"]) == {0.1}  # fitted on
    assert labels.of_requests["low"].mean() == pytest.approx(0.1, abs=0.02)
    assert form is None or form.limit < 0.1
    assert figures["held_out"]["policies"]["all low"]["over"] == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1]", "labels:1: expected an object, got '[1]'"),
        ('{"features": {"digits": "a"}, "low": {"kl": 1}}', "labels:1: feature digits must be a number, got 'a'"),
        ('{"features": {"digits": 1}, "low": {"kl": -1}}', "labels:1: low.kl must be from 0 to 1e+06, got -1"),
        ('{"features": {"digits": 1}, "low": {"kl": NaN}}', "labels:1: low.kl must be a number, got 'nan'"),
        ('{"features": {"digits": 1}, "low": 3}', "labels:1: low must be an object with 'kl', or a bool, got '3'"),
        (
            '{"features": {"digits": 1}, "low": {"kl": 1, "kl_answers": []}}',
            "labels:1: low.kl_answers must be a list of numbers, got '[]'",
        ),
        ('{"low": {"kl": 1}}', 'labels:1: expected "features", an object of numbers, or "prompt", a text'),
        ('{"features": {"digits": 1}, "low": {}}', "none of 1 lines has 'kl' of every tier; lines with it: low 0"),
        ('{"features": {"other": 1}, "low": {"kl": 1}}', "no feature is in every line, expected some of entropy"),
        ("", "there is no label in"),
        ("[" * 100_000, "labels:1: not JSON"),
        (
            '{"features": {"digits": 1}, "low": {"kl": 1}, "reference": "bf16"}',
            "no line has 'kl' of 'top', and the losses are held against bf16: the top must be that, or have losses",
        ),
        ('{"features": {"digits": 1}, "low": {"kl": 1e308}}', "labels:1: low.kl must be from 0 to 1e+06, got 1e+308"),
        ('{"features": {"digits": 1}, "low": {"kl": 1e999}}', "labels:1: low.kl must be from 0 to 1e+06, got inf"),
        ('{"features": {"digits": 1%s}, "low": {"kl": 1}}' % ("0" * 400), "digits must be from 0 to 1e+09, got 1000"),
    ],
)
def test_a_wrong_label_is_refused_by_its_place_and_value(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "labels"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(InputError) as refused:
        read_labels(path, ("low", "top"), "kl")

    assert expected in str(refused.value)


def test_more_labels_than_are_read_are_refused_where_the_first_one_too_many_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "MAX_LABELS", 2)
    right: dict[str, Any] = {"features": {"digits": 1}, "low": {"kl": 1}}
    path = write(tmp_path / "labels.gz", [right, right, right, {"wrong": 1}])

    with pytest.raises(InputError, match=r"labels.gz:3: more than 2 labels: take a sample of them"):
        read_labels(path, ("low", "top"), "kl")


def test_the_same_text_is_never_both_fitted_on_and_promised_by(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    low = {"kl": 0.1}
    rows: list[dict[str, Any]] = [{"prompt": f"text {number % 20}", "low": low} for number in range(100)]
    rows += [{"id": number % 10, "features": {"digits": 0.1}, "low": low} for number in range(50)]
    rows += [{"id": text_id(f"text {number}"), "features": {"digits": 0.2}, "low": low} for number in range(20)]
    rows += [{"features": {"digits": number % 5}, "low": {"kl": float(chance.random())}} for number in range(50)]

    labels, _ = read_labels(write(tmp_path / "labels.gz", rows), ("low", "top"), "kl")

    assert len(set(labels.groups)) == 20 + 10 + 5
    parts = [{labels.groups[row] for row in part} for part in divided(labels.groups, 0)]
    assert sum(map(len, parts)) == 35
    assert all(len(part) > 5 for part in parts)


def test_the_cheapest_tier_is_used_where_the_next_one_loses_far_less_than_any_limit() -> None:
    labels = labels_of(400, seed=1)
    both = dataclasses.replace(labels, losses={**labels.losses, "middle": 0.01 * labels.losses["low"]})
    question = dataclasses.replace(QUESTION, costs={"low": 0.3, "middle": 0.6, "top": 1.0})

    form, figures = tune(both, question)

    assert form is not None
    assert figures["held_out"]["policies"]["tuned"]["shares"]["low"] > 0.5
    assert figures["next"]["risk"] > 0.02  # the sequence goes on until the labels do not prove it


@pytest.mark.parametrize("promise", ["high-probability", "mean"])
def test_labels_that_come_again_prove_no_more_than_once(promise: str) -> None:
    labels, times = labels_of(100, seed=1), 8
    again = Labels(
        names=labels.names,
        features=np.tile(labels.features, (times, 1)),
        losses={"low": np.tile(labels.losses["low"], times)},
        sources=labels.sources * times,
        groups=labels.groups * times,
    )
    question = dataclasses.replace(QUESTION, promise=promise, alpha=0.03)

    once, figures = tune(again, question)[1], tune(labels, question)[1]

    assert once["labels"] == {**figures["labels"], "repeated": 700}
    assert (once["limit"], once["next"]) == (figures["limit"], figures["next"])


def test_a_mean_promise_says_how_many_labels_it_takes_itself() -> None:
    labels = labels_of(50, seed=1)
    question = dataclasses.replace(QUESTION, promise="mean", alpha=0.04, threshold=1.0)

    _, figures = tune(labels, question)

    # 20 labels for the promise, and one more that might lose: 1 / (20 + 1) is over 0.04, 1 / (24 + 1) is not.
    assert (figures["limit"], figures["next"]) == (None, {"risk": 0.0, "more_labels": 10})


@pytest.mark.long
def test_tune_chooses_a_predictor_and_shows_all_of_them_on_labels_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = np.random.default_rng(5)
    labels = write(tmp_path / "labels.gz", [line(chance, number) for number in range(200)])

    options = ("--cost", "low=0.3", "--cost", "top=1", "--measure", "kl", "--risk", "mean", "--clip", "0.5")
    assert run("tune", labels, "-o", tmp_path / "policy.json", *options, "--alpha", "0.2", "--json") == 0

    figures = json.loads(capsys.readouterr().out)
    assert figures["predictor"]["name"] in figures["predictor"]["scores"]
    assert all(figures["predictor"]["latency_us"][name]["p50"] < 100 for name in figures["predictor"]["scores"])
    assert figures["predictors"]["ridge"]["by_source"]["low"] > 0.5 > figures["predictors"]["tokens"]["random"]["high"]
    assert figures["held_out"]["policies"]["random"]["cost"] == figures["held_out"]["policies"]["tuned"]["cost"]
    form = read_form((tmp_path / "policy.json").read_bytes(), "policy.json")
    assert isinstance(form, LearnedForm)
    assert form.measure == "the mean of kl added, each clipped at 0.5, is at most 0.2"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cost", "low", "--cost", "top=1"), "--cost must be TIER=COST, as int4=0.3, got 'low'"),
        (("--cost", "low=nan", "--cost", "top=1"), "--cost must be TIER=COST with a cost from 0 to 1e9, got 'low=nan'"),
        (("--cost", "low=1"), "--cost must name two tiers or more, got low"),
        (("--cost", "low=1", "--cost", "low=2", "--cost", "top=3"), "--cost low is there twice: 1, and 'low=2'"),
        ((*COSTS, "--clip", "1"), "--risk share takes --threshold, and no --clip"),
        ((*COSTS, "--risk", "mean"), "--risk mean takes --clip and --alpha, and no --threshold"),
        ((*COSTS, "--load", "3"), "--cost and --load both say what a tier costs: leave one out"),
        (("--load", "3"), "--load takes --fleet and --curves"),
        ((*COSTS, "--predictor", "knn"), "got 'knn': routing cannot evaluate it"),
        ((*COSTS, "--alpha", "0"), "--alpha must be above 0 and below 1, got 0"),
        ((*COSTS, "--out", "nowhere/policy.json"), "--out must be a file in a folder that exists"),
    ],
)
def test_a_wrong_option_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], expected: str
) -> None:
    assert run("tune", tmp_path / "none", "-o", tmp_path / "policy.json", "--threshold", "0.1", *options) == 2
    assert expected in capsys.readouterr().err
