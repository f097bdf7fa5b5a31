"""calibrate ablate: from a file of labels to a report in which nobody is judged by what it was fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitladder.policy_forms import Form, Input, LearnedForm, Linear
from calibration.commands.app import main
from calibration.control.ablation import handing_over, held_out
from calibration.control.ablation.run_ablation import Question, ablate
from calibration.control.predictors.registry import PREDICTORS

Json = dict[str, Any]
COSTS = ("--cost", "low=0.2", "--cost", "middle=0.5", "--cost", "top=1")


def labels_of(count: int = 200, seed: int = 5, *, sources: int = 10, is_noise: bool = False) -> list[Json]:
    """Return labels whose loss on the low tier grows with their digits, whose answers say it more clearly still."""
    chance = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        digits, length, part = map(float, chance.random(3))
        kl = 0.2 * (part if is_noise else digits * (0.5 + part))
        tiers = {
            "low": {"answer": {"kl": kl, "flips": min(1.0, kl), "tokens": 64}, "own": {"entropy": kl, "margin": -kl}},
            "middle": {"answer": {"kl": 0.1 * kl, "flips": 0.1 * kl, "tokens": 64}},
        }
        features = {"digits": digits, "bytes": 1000 * length, "entropy": 4.0 + length}
        lines.append({"source": f"s{number % sources}", "kind": f"k{number % 3}", "features": features, "tiers": tiers})
    return lines


def write(path: Path, lines: list[Json]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    """Run `bitladder calibrate` in this process; returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def compared(
    tmp_path: Path, lines: list[Json], *, policy: Form | None = None, prompt_weight: float = 0.25, **costs: float
) -> Json:
    question = Question(
        costs=costs or {"low": 0.2, "middle": 0.5, "top": 1.0},
        measure="answer.kl",
        agreement="answer.flips",
        sure=("own.entropy", "own.margin"),
        policy=policy,
        resamples=40,
        seed=0,
        prompt_weight=prompt_weight,
    )
    return ablate(write(tmp_path / "labels.jsonl", lines), question)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the quick predictors alone: trees take two seconds of CPU, whatever the labels are."""
    monkeypatch.setattr(held_out, "PREDICTORS", {name: PREDICTORS[name] for name in ("ridge", "knn")})
    monkeypatch.setattr(handing_over, "_ROUTERS", ("ridge",))


def value(figures: Json, *names: str) -> float:
    for name in names:
        figures = figures[name]
    return float(figures["value"])


def test_a_report_shows_all_policies_on_both_splits_and_what_they_are_held_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(tmp_path / "labels.jsonl", labels_of())
    assert run("ablate", labels, "-o", tmp_path / "report", "--resamples", 40, *COSTS) == 0

    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    shown = capsys.readouterr().out
    assert "held out by chance" in shown
    assert "held out by source" in shown
    assert "the article's rule: low 5" in shown
    for split in ("random", "source"):
        policies = report["splits"][split]["policies"]
        assert value(policies["oracle"], "area_share") == 1
        assert value(policies["random"], "area_share") == 0
        assert value(policies["ridge"], "area_share") > 0.5
        assert value(policies["entropy"], "area_share") < 0.2
        assert value(policies["ridge"], "spearman", "loss") > 0.6
        assert value(policies["ridge"], "at_article_cost", "of_article") < 0.75
        assert value(policies["cascade: own.margin"], "spearman", "loss") > 0.95
        assert value(policies["ridge"], "within_kinds", "area_share") > 0.5
        low, high = policies["ridge"]["area_share"]["by_source"]
        assert low < value(policies["ridge"], "area_share") < high
    assert report["article"]["shares"]["top"] == 0  # entropy sends nothing beyond the middle of three tiers
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.json", "report.html", "curves.png", "kinds.png", "manifest.json"
    }  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("data:", "")


@pytest.mark.usefixtures("quick")
def test_nothing_can_be_won_on_noise(tmp_path: Path) -> None:
    assert {"ridge", "knn"} <= policies_that_win_nothing(tmp_path)


@pytest.mark.long
def test_nothing_can_be_won_on_noise_whatever_is_fitted(tmp_path: Path) -> None:
    assert {"ridge", "boosted", "forest", "knn", "clusters"} <= policies_that_win_nothing(tmp_path)


def policies_that_win_nothing(tmp_path: Path) -> set[str]:
    report = compared(tmp_path, labels_of(300, is_noise=True))
    names = set()
    for split in report["splits"].values():
        for name, policy in split["policies"].items():
            if name != "oracle" and not name.startswith("cascade"):
                assert value(policy, "area_share") < 0.2, name
                names.add(name)
    return names


@pytest.mark.long
def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    first, second = (compared(tmp_path, labels_of(60)) for _ in range(2))

    assert first.pop("latency_us").keys() == second.pop("latency_us").keys()
    assert first == second


@pytest.mark.usefixtures("quick")
def test_a_policy_s_file_is_compared_at_all_limits_and_as_it_serves(tmp_path: Path) -> None:
    form = LearnedForm(
        limit=0.1, inputs=(Input(name="digits"),), tiers={"low": Linear(high=1.0, intercept=0.0, weights=(0.2,))}
    )
    lines = labels_of(60)

    report = compared(tmp_path, lines, policy=form)

    served = sum(line["features"]["digits"] <= 0.5 for line in lines) / len(lines)
    assert report["policy"]["shares"] == pytest.approx({"low": served, "middle": 0, "top": 1 - served})
    assert value(report["splits"]["source"]["policies"]["policy"], "spearman", "loss") > 0.6


@pytest.mark.usefixtures("quick")
def test_a_policy_that_was_fitted_on_these_labels_is_marked_and_nothing_is_held_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, others = tmp_path / "policy.json", write(tmp_path / "others.jsonl", labels_of(200, seed=6))
    labels = write(tmp_path / "labels.jsonl", labels_of(200))
    tuning = ("--measure", "answer.kl", "--threshold", 0.15, "--alpha", 0.2, "--no-compare", "--predictor", "ridge")

    assert run("tune", labels, "-o", policy, *COSTS, *tuning) == 0
    capsys.readouterr()
    for name, is_fitted_here in ((labels, True), (others, False)):
        folder = tmp_path / f"report {is_fitted_here}"
        assert run("ablate", name, "-o", folder, "--resamples", 20, "--policy", policy, *COSTS) == 0
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert report["fitted_here"] == is_fitted_here
        assert {split["best_router"] for split in report["splits"].values()} <= set(PREDICTORS) | {"zlib ratio"}
        shown = capsys.readouterr().out
        assert ("policy, fitted on these labels" in shown) == is_fitted_here
        assert ("fitted on these very labels" in shown) == is_fitted_here


@pytest.mark.usefixtures("quick")
def test_answers_that_are_right_or_wrong_have_routellm_s_figures(tmp_path: Path) -> None:
    chance = np.random.default_rng(6)
    lines = []
    for number in range(200):
        digits = float(chance.random())
        features = {"digits": digits, "entropy": 4.5}
        right = {"weak": bool(chance.random() > digits), "strong": bool(chance.random() < 0.95)}
        lines.append({"task": f"t{number % 8}", "features": features, **right})

    report = compared(tmp_path, lines, weak=0.1, strong=1.0)

    assert report["cascades"] == []
    figures = report["splits"]["source"]["routellm"]
    assert value(figures["ridge"], "apgr") > 0.65
    assert value(figures["ridge"], "cpt_50") < 0.4
    assert value(figures["entropy"], "apgr") == pytest.approx(0.5, abs=0.15)


@pytest.mark.usefixtures("quick")
def test_labels_of_one_source_are_held_out_by_chance_only_and_the_report_says_so(tmp_path: Path) -> None:
    report = compared(tmp_path, labels_of(60, sources=1))

    assert list(report["splits"]) == ["random"]
    assert report["splits"]["random"]["policies"]["ridge"]["area_share"]["by_source"] is None
    assert report["left_out"]["folds by source"] == "all labels are from one source"


def with_losses(kl: Callable[[int], tuple[float, float, float]]) -> list[Json]:
    lines = labels_of(60)
    for number, line in enumerate(lines):
        line["tiers"] = {
            tier: {"answer": {"kl": loss, "flips": 0.0}}
            for tier, loss in zip(("low", "middle", "top"), kl(number), strict=True)
        }
    return lines


def test_labels_on_which_nothing_is_lost_are_said_to_leave_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(tmp_path / "labels.jsonl", with_losses(lambda _: (0.25, 0.25, 0.25)))

    assert run("ablate", labels, "-o", tmp_path / "report", "--resamples", 20, *COSTS) == 0

    said = (
        "Nothing is lost below top on any of these 60 labels (answer.kl is at low and middle what it is at top): all "
        "requests may go to low, and there are no policies to compare."
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["nothing_lost"].startswith(said)
    assert report["splits"] == {}
    assert said in (shown := capsys.readouterr().out)
    assert "held out" not in shown
    assert said in (page := (tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert "<th>policy</th>" not in page
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.json", "report.html", "manifest.json"}


@pytest.mark.usefixtures("quick")
def test_a_lowest_tier_that_loses_nothing_on_average_has_its_empty_columns_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = with_losses(lambda number: ((0.3, 0.2, 0.1), (0.0, 0.1, 0.2))[number % 2])

    assert (
        run("ablate", write(tmp_path / "labels.jsonl", lines), "-o", tmp_path / "report", "--resamples", 20, *COSTS)
        == 0
    )

    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["nothing_lost"] is None
    assert report["nothing_left"].startswith("On average low loses nothing beyond top on these labels")
    assert report["splits"]["random"]["policies"]["random"]["at_lowest_share"]["0.5"]["remaining"] is None
    assert "NaN" not in json.dumps(report)
    assert "On average low loses nothing beyond top" in capsys.readouterr().out
    assert "On average low loses nothing" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def begun(lines: list[Json]) -> list[Json]:
    """Return labels whose answers show after 8 of 80 tokens what the whole answers do."""
    for number, line in enumerate(lines):
        own = line["tiers"]["low"]["own"]
        beginning = {name: own[name] for name in ("entropy", "margin")}
        own |= {"tokens": 80, "beginnings": {"8": beginning, "40": beginning}}
        line["features"]["tokens"] = 40.0 + number % 3
    return lines


@pytest.mark.usefixtures("quick")
def test_a_cascade_that_hands_over_early_is_compared_at_each_number_of_tokens_and_behind_a_router(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(tmp_path / "labels.jsonl", begun(labels_of(120)))
    costs = ("--cost", "low=0.2", "--cost", "top=1")

    assert run("ablate", labels, "-o", tmp_path / "report", "--resamples", 20, *costs) == 0

    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["spent_after_tokens"] == pytest.approx({"8": 18.25 / 90.25, "40": 50.25 / 90.25}, abs=1e-3)
    policies = report["splits"]["source"]["policies"]
    for name in ("own.entropy", "own.margin", "ridge on features and answer"):
        whole, early, later = (policies[f"cascade: {name}{after}"] for after in ("", " after 8", " after 40"))
        assert (whole["after_tokens"], early["after_tokens"]) == (None, 8)
        assert value(whole, "area_share") < value(later, "area_share") < value(early, "area_share")
        assert value(early, "spearman", "loss") == pytest.approx(value(whole, "spearman", "loss"), abs=0.02)
    stack = policies["stacked: ridge, then ridge on features and answer after 8"]
    assert value(stack, "area_share") > value(policies["ridge"], "area_share")
    assert value(policies["oracle"], "at_article_cost", "of_best_router") < 1
    shown = capsys.readouterr().out
    assert "cascade: own.margin after 8, 40 tokens: at equal cost it loses 0." in shown
    assert "oracle: at equal cost it loses 0." in shown


@pytest.mark.usefixtures("quick")
def test_a_prompt_that_costs_nothing_leaves_less_spent_and_two_sources_leave_no_stack(tmp_path: Path) -> None:
    report = compared(tmp_path, begun(labels_of(60, sources=2)), prompt_weight=0.0)

    assert report["spent_after_tokens"] == {"8": 0.1, "40": 0.5}
    stacked = {
        split: [name for name in part["policies"] if "stacked" in name] for split, part in report["splits"].items()
    }
    assert [len(names) for names in stacked.values()] == [2, 0]
    assert report["left_out"] == {"stacked policies, by source": "they take 3 sources or more"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        (labels_of(60), ("--cost", "low=1"), "--cost must name two tiers or more, got low"),
        (labels_of(60), ("--cost", "low=1", "--cost", "top=1"), "the dearest, the top: low and top cost 1"),
        ([{**line, "id": "same"} for line in labels_of(60)], COSTS, "labels are of 1 texts, expected 5 or more"),
        (labels_of(49), COSTS, "49 labels have a loss of every tier, expected 50 to 50,000"),
        ([*labels_of(60), {"features": {"digits": 1}, "low": {"answer": {"kl": float("nan")}}}], COSTS,
         "low.answer.kl must be a number, got 'nan'"),
        (labels_of(60), (*COSTS, "--agreement", "answer.kl2"), ""),
        (labels_of(60), (*COSTS, "--agreement", "answer.tokens"), "'answer.tokens' must be from 0 to 1 in every label"),
        (labels_of(60), (*COSTS, "--measure", "nothing"), "none of 60 lines has 'nothing' of every tier"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[Json], options: tuple[str, ...], expected: str
) -> None:
    labels = write(tmp_path / "labels.jsonl", lines)
    status = run("ablate", labels, "-o", tmp_path / "report", "--resamples", 20, *options)

    assert status == (2 if expected else 0)
    assert expected in capsys.readouterr().err
    assert (tmp_path / "report").exists() == (not expected)


def test_a_policy_of_other_tiers_and_a_folder_of_somebody_else_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(tmp_path / "labels.jsonl", labels_of(60))
    policy = tmp_path / "policy.toml"
    policy.write_text('kind = "threshold"\notherwise = "int9"\n[[rules]]\nwhen = ["entropy > 4.5"]\nfloor = "top"\n')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes").write_text("mine")

    assert run("ablate", labels, "-o", tmp_path / "new", *COSTS, "--policy", policy) == 2
    assert "--policy names the tier 'int9', which has no --cost: expected low, middle, top" in capsys.readouterr().err
    assert run("ablate", labels, "-o", tmp_path / "taken", *COSTS) == 2
    assert "--out must be a new or empty folder" in capsys.readouterr().err
