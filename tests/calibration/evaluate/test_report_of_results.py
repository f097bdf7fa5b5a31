"""From results to the report, its table, its page and its plot; and what is measured is not measured again."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from bitladder.settings.models_section import ModelSettings, TierSettings
from bitladder.settings.publish_section import PublishSettings
from bitladder.settings.release import Published
from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.evaluation_report import Report, encode_report
from calibration.artifacts.hardware import speed_of_another
from calibration.evaluate.candidates import Candidate, CheckpointArg, find_candidates, find_served
from calibration.evaluate.distributions import Distributions
from calibration.evaluate.evaluation_page import evaluation_page
from calibration.evaluate.figures import share_figures
from calibration.evaluate.measures.code_problems import CodeProblems, Solved
from calibration.evaluate.measures.likelihood import Likelihood, Passages, text_figures
from calibration.evaluate.measures.measure import Measure
from calibration.evaluate.measures.own_tasks import Answered, OwnTasks
from calibration.evaluate.measures.pace import Pace, Paced, pace_figures
from calibration.evaluate.plot import axis_label, quality_cost_png
from calibration.evaluate.report_table import rows
from calibration.evaluate.run_evaluation import Evaluator, ReportHeader, evaluate, tier_report
from calibration.evaluate.store import Store
from calibration.evaluate.task_file import Task
from calibration.sandbox.bubblewrap import Bubblewrap
from calibration.terminal.progress import Steps
from tests.calibration.evaluate.test_candidates import LADDER, checkpoint

NATS = math.log(2)
MEASURES: list[Measure[Any]] = [
    Likelihood("code", [], 1, 1),
    CodeProblems([], Bubblewrap()),
    OwnTasks([]),
    Pace([], {}),
]


def passages(loss: float, top: int = 5, tokens: str = "same") -> Passages:
    """Return ten passages of twenty tokens, each with this loss, and one likely token besides the rest."""
    logprobs = np.full((20, 1), math.log(0.5), np.float32)
    one = Distributions(np.full(20, -loss, np.float32), np.full((20, 1), top, np.int32), logprobs)
    return Passages(tokens, (one,) * 10)


def paced(rate: float, wait_s: float = 0.1) -> Paced:
    return Paced(tokens_per_s=[rate - 1, rate, rate + 1], ttft_s=[wait_s] * 21, resident_bytes=10**9, gpu_bytes=None)


def test_perplexity_divergence_and_agreement_are_those_of_the_definitions() -> None:
    figures = text_figures("code", passages(3 * NATS), passages(2 * NATS))

    assert figures.metrics["perplexity.code"].value == pytest.approx(8)
    assert figures.metrics["perplexity.code"].n == 200
    assert figures.recovery["perplexity.code"].value == pytest.approx(4 / 8)
    assert figures.compared["perplexity.code"].difference == pytest.approx(8 - 4)
    assert figures.metrics["kl_mean.code"].value == pytest.approx(0, abs=1e-6)
    assert figures.metrics["top1.code"].value == 1
    assert text_figures("code", passages(1, top=4), passages(1)).metrics["top1.code"].value == 0


def test_a_checkpoint_that_gives_the_text_no_chance_is_bad_but_not_infinite() -> None:
    figures = text_figures("code", passages(9999), passages(1))

    assert 1e200 < figures.metrics["perplexity.code"].value < math.inf
    assert figures.recovery["perplexity.code"].value == 0


def test_the_reference_has_no_recovery() -> None:
    figures = text_figures("code", passages(1), None)

    assert (list(figures.metrics), figures.recovery, figures.compared) == (["perplexity.code"], {}, {})


def test_shares_are_compared_item_by_item() -> None:
    tier, reference = [True] * 3 + [False] * 7, [False] + [True] * 5 + [False] * 4

    figures = share_figures("pass_at_1", tier, reference)

    assert figures.metrics["pass_at_1"].value == 0.3
    assert figures.recovery["pass_at_1"].value == pytest.approx(3 / 5)
    compared = figures.compared["pass_at_1"]
    assert compared.difference == pytest.approx(-0.2)
    assert (compared.better, compared.worse) == (1, 3)
    assert compared.p == pytest.approx(10 / 16)


def test_nothing_is_recovered_of_a_reference_that_got_nothing_right() -> None:
    assert share_figures("pass_at_1", [True, False], [False, False]).recovery == {}


def test_none_of_twenty_against_one_is_no_certain_loss() -> None:
    kept = share_figures("pass_at_1", [False] * 20, [True] + [False] * 19).recovery["pass_at_1"]

    assert (kept.value, kept.low) == (0, 0)
    assert kept.high > 1


def test_answers_that_are_compared_are_a_figure_of_their_own_and_not_of_the_reference() -> None:
    tasks = OwnTasks([Task(prompt="?", name="sql", same="number"), Task(prompt="?", name="sql", exact="a")])
    reference = [Answered("sql", None, "is 4"), Answered("sql", True, "a")]
    tier = [Answered("sql", None, "4.0"), Answered("sql", False, "b")]

    assert list(tasks.figures(reference, None, candidate("bf16")).metrics) == ["task.sql"]
    figures = tasks.figures(tier, reference, candidate("int4"))
    assert {name: figure.value for name, figure in figures.metrics.items()} == {"task.sql": 0, "task_same.sql": 1}
    assert figures.metrics["task_same.sql"].low < 1
    assert figures.recovery["task_same.sql"].value == 1
    served = [Answered("sql", None, "5"), Answered("sql", True, "a")]
    compared = tasks.compare(tier, served, reference)
    assert {name: (figure.better, figure.worse) for name, figure in compared.items()} == {
        "task.sql": (0, 1),
        "task_same.sql": (1, 0),
    }
    assert list(tasks.compare(tier, served, None)) == ["task.sql"]


def test_speed_gives_cost_and_recovery_both_ways_round() -> None:
    figures = pace_figures(paced(200, 0.1), paced(100, 0.2), weight_bytes=7, price_per_hour=0.72)

    assert figures.metrics["tokens_per_s"].value == pytest.approx(200)
    assert figures.metrics["cost_per_mtok"].value == pytest.approx(1.0)
    assert figures.recovery["tokens_per_s"].value == pytest.approx(2)
    assert figures.recovery["ttft_ms.p99"].value == pytest.approx(2)
    assert figures.metrics["memory_bytes.weights"].value == 7
    assert "cost_per_mtok" not in pace_figures(paced(1), None, weight_bytes=7, price_per_hour=0).metrics


@pytest.mark.parametrize(
    ("hardware", "gpu", "is_same"),
    [
        ("cpu", "", True),
        ("cpu", "NVIDIA L4", False),
        ("L4", "", False),
        ("L4", "NVIDIA L4, NVIDIA L4", True),
        ("2x L4", "NVIDIA L4", True),
        ("L4", "NVIDIA L40S", False),
        ("NVIDIA A100-80GB", "NVIDIA A100-SXM4-80GB", True),
        ("RTX4090", "NVIDIA GeForce RTX 4090", True),
        ("A10G", "NVIDIA H100 80GB HBM3", False),
    ],
)
def test_a_price_is_put_on_a_speed_of_its_own_hardware_only(
    hardware: str, gpu: str, is_same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Candidate, "weight_bytes", property(lambda _: 7))
    tier = TierSettings(name="int4", price_per_hour=0.7, hardware=hardware)
    pace = Pace([], {"cpu": "AMD EPYC", "gpu": gpu})

    figures = pace.figures(paced(100), None, Candidate(Path("/m"), tier, "0" * 64))

    assert ("cost_per_mtok" in figures.metrics) is is_same
    assert (speed_of_another(hardware, pace.machine) == "") is is_same


def test_the_axis_says_why_cost_is_unknown(report: Report) -> None:
    elsewhere = [msgspec.structs.replace(tier, hardware="L4") for tier in report.tiers]

    assert axis_label(report, "cost_per_mtok") == "price of a million tokens (log)"
    assert axis_label(report, "memory_bytes.weights") == "weights, MB (log); cost is unknown: a tier has no price"
    assert axis_label(msgspec.structs.replace(report, tiers=tuple(elsewhere)), "memory_bytes.weights").endswith(
        "cost is unknown: measured on any, the tier's hardware is L4"
    )


def candidate(name: str, price: float = 0.0) -> Candidate:
    return Candidate(Path("/models") / name, TierSettings(name=name, price_per_hour=price), "0" * 64)


def results(loss: float, right: int, rate: float) -> dict[str, Any]:
    return {
        "text.code": passages(loss),
        "code": [Solved(f"p{index}", index < right, "", "") for index in range(20)],
        "tasks": [Answered("capitals", index < right, "") for index in range(20)],
        "pace": paced(rate),
    }


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(Candidate, "weight_bytes", property(lambda _: 10**8))
    baseline = results(2.0, 12, 100)
    tiers = [
        tier_report(candidate("bf16"), MEASURES, baseline, None),
        tier_report(candidate("int4", 0.7), MEASURES, results(2.2, 9, 150), baseline),
        tier_report(candidate("int8", 1.0), MEASURES, results(2.05, 12, 180), baseline),
    ]
    return Report(
        model="small & <smart>",
        reference="bf16",
        tiers=tuple(tiers),
        sources={"heldout": "1" * 64},
        versions={"engine": "vllm 0.32"},
        machine={"cpu": "any"},
        made_at="2026-11-24T12:00:00+00:00",
        seconds=1.0,
    )


def test_the_table_shows_every_metric_and_what_is_kept_of_the_reference(report: Report) -> None:
    table = {row.title: row.cells for row in rows(report) if not row.title.startswith(" ")}

    assert list(table) == [
        "perplexity.code",
        "kl_mean.code",
        "top1.code",
        "pass_at_1",
        "task.capitals",
        "tokens_per_s",
        "ttft_ms.p50",
        "ttft_ms.p99",
        "memory_bytes.weights",
        "memory_bytes.resident",
        "cost_per_mtok",
    ]
    assert table["pass_at_1"][:2] == ["60.0 % [38.7 %, 78.1 %]", "45.0 % [25.8 %, 65.8 %]"]
    assert table["memory_bytes.weights"] == ["100 MB"] * 3
    under = [row.cells[1] for row in rows(report) if row.title == "  difference"]
    assert under[1].startswith("-15 [")
    assert under[1].endswith("points, +0 -3, p 0.25")
    assert not any(cell for row in rows(report) if row.title.startswith(" ") for cell in row.cells[:1])


def test_the_page_stands_alone_and_escapes_what_it_shows(report: Report) -> None:
    page = evaluation_page(report, b"PNG")

    assert "<h1>small &amp; &lt;smart&gt;: evaluation</h1>" in page
    assert "data:image/png;base64,UE5H" in page
    assert "http" not in page


def test_the_page_names_what_could_not_be_measured_and_why(report: Report) -> None:
    page = evaluation_page(msgspec.structs.replace(report, failed={"fp8": "out of <memory>\nat all"}), b"PNG")

    assert "<h2>fp8 could not be measured</h2><pre>out of &lt;memory&gt;\nat all</pre>" in page


def test_the_page_names_a_source_by_where_it_came_from_and_by_digest(report: Report) -> None:
    page = evaluation_page(msgspec.structs.replace(report, source_names={"heldout": "/sets/<mine>.jsonl"}), b"PNG")

    assert f"<td>heldout: /sets/&lt;mine&gt;.jsonl</td><td>{'1' * 64}</td>" in page


@pytest.mark.parametrize("with_prices", [True, False])
@pytest.mark.parametrize("tiers", [1, 3])
def test_the_plot_is_a_picture(report: Report, with_prices: bool, tiers: int) -> None:
    report = msgspec.structs.replace(report, tiers=report.tiers[:tiers])
    if not with_prices:
        fields = [tier.metrics for tier in report.tiers]
        for metrics in fields:
            metrics.pop("cost_per_mtok", None)

    png = quality_cost_png(report)

    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000


def test_the_plot_has_room_for_many_tiers_without_a_price(report: Report) -> None:
    tier = report.tiers[1]
    metrics = {name: figure for name, figure in tier.metrics.items() if name != "cost_per_mtok"}
    more = [msgspec.structs.replace(tier, tier=f"int4-with-a-long-name-{n}", metrics=metrics) for n in range(20)]

    png = quality_cost_png(msgspec.structs.replace(report, tiers=(*report.tiers, *more)))

    assert png.startswith(b"\x89PNG"), "a warning that the panels have no room left would have been an error"


def evaluation(folder: Path) -> Evaluator:
    measures: list[Measure[Any]] = [Likelihood("code", ["x"], 100, 1), OwnTasks([Task(prompt="?", exact="a")])]
    return Evaluator(
        measures=measures,
        vllm=VllmSettings(python="/nowhere/python", cache_dir=str(folder)),
        engine_version="vllm 0.32",
        top=1,
        store=Store(folder / "results"),
        steps=Steps(Console(file=io.StringIO())),
    )


def store_results(its: Evaluator, candidate: Candidate, loss: float, tokens: str = "same") -> None:
    for measure, result in zip(
        its.measures, (passages(loss, tokens=tokens), [Answered("own", True, "a")]), strict=True
    ):
        inputs = candidate.inputs(its.vllm, its.engine_version) | {"inputs": measure.inputs}
        its.store.save(measure.name, inputs, measure.encode(result))


def pair(folder: Path, its: Evaluator) -> list[Candidate]:
    """Return a reference and a checkpoint that the ladder serves."""
    given = [CheckpointArg(checkpoint(folder / "bf16")), CheckpointArg(checkpoint(folder / "four", b"other"))]
    return find_candidates(given, LADDER, its.vllm)


ABOUT = ReportHeader(model="m", sources={}, versions={})


async def test_what_was_measured_is_reported_again_without_an_engine(tmp_path: Path) -> None:
    its = evaluation(tmp_path)
    ours = pair(tmp_path, its)
    for one, loss in zip(ours, (2.0, 2.5), strict=True):
        store_results(its, one, loss)

    report = await evaluate(ours[0], ours[1:], its, ABOUT)

    assert [tier.tier for tier in report.tiers] == ["bf16", "int4"]
    assert report.tiers[1].metrics["perplexity.code"].value == pytest.approx(math.exp(2.5), rel=1e-5)
    assert report.tiers[1].metrics["task.own"].value == 1
    assert encode_report(report)


async def test_what_a_tier_serves_is_measured_beside_what_would_replace_it(tmp_path: Path) -> None:
    evaluator = evaluation(tmp_path)
    served, new, reference = (checkpoint(tmp_path / name, name.encode()) for name in ("four", "new", "bf16"))
    arguments = [CheckpointArg(reference), CheckpointArg(new, "int4")]
    bf16, int4 = find_candidates(arguments, LADDER, evaluator.vllm)
    incumbents = find_served([int4], LADDER, evaluator.vllm, lambda text: None)
    for measured, loss in ((bf16, 2.0), (int4, 2.5), (incumbents["int4"], 2.2)):
        store_results(evaluator, measured, loss)

    report = await evaluate(bf16, [int4], evaluator, ABOUT, incumbents)

    assert [(tier.tier, tier.checkpoint) for tier in report.tiers[1:]] == [
        ("int4-served", str(served)),
        ("int4", str(new)),
    ]
    incumbent = report.tiers[2].incumbent
    assert incumbent
    assert (incumbent.tier, incumbent.digest) == ("int4-served", report.tiers[1].digest)
    assert set(incumbent.compared) == {"perplexity.code", "kl_mean.code", "top1.code", "task.own"}
    assert incumbent.compared["perplexity.code"].difference == pytest.approx(math.exp(2.5) - math.exp(2.2), rel=1e-5)
    assert incumbent.compared["kl_mean.code"].difference == 0
    assert "<h2>Against what is served</h2>" in evaluation_page(report, b"")


def test_what_is_served_is_no_incumbent_of_itself_nor_once_it_has_changed(tmp_path: Path) -> None:
    evaluator, notes = evaluation(tmp_path), list[str]()
    checkpoint(tmp_path / "four")
    new, same = checkpoint(tmp_path / "new", b"new"), checkpoint(tmp_path / "same")
    published = LADDER.tier("int4").model_copy(update={"published": Published(version=1, digest="0" * 64)})
    changed = LADDER.model_copy(update={"tiers": (published, *LADDER.tiers[1:])})

    def served(folder: Path, model: ModelSettings) -> dict[str, Candidate]:
        chosen = find_candidates([CheckpointArg(folder, "int4")], model, evaluator.vllm)
        return find_served(chosen, model, evaluator.vllm, notes.append)

    assert list(served(new, LADDER)) == ["int4"]
    assert (served(same, LADDER), served(tmp_path / "four", LADDER), notes) == ({}, {}, [])
    assert served(new, changed) == {}
    assert notes == [f"int4-served: not measured: {tmp_path / 'four'} has changed since it was published"]


async def test_a_report_carries_the_verdict_of_publish_and_the_limits_that_it_is_by(tmp_path: Path) -> None:
    evaluator = evaluation(tmp_path)
    reference, candidate = pair(tmp_path, evaluator)
    for measured, loss in ((reference, 2.0), (candidate, 2.5)):
        store_results(evaluator, measured, loss)
    strict = replace(ABOUT, settings={"publish": {"max_kl": 0.2}}, publish=PublishSettings(min_tokens=200))
    few = replace(ABOUT, publish=PublishSettings(min_tokens=201))

    refused, unproven = [await evaluate(reference, [candidate], evaluator, about) for about in (strict, few)]

    assert (refused.tiers[0].verdict, refused.settings) == (None, {"publish": {"max_kl": 0.2}})
    assert refused.tiers[1].verdict
    assert "perplexity.code keeps 0.607 of the reference" in refused.tiers[1].verdict.reasons[0]
    assert unproven.tiers[1].verdict
    assert "perplexity.code judges nothing: 200 tokens of at least 201" in unproven.tiers[1].verdict.reasons[1]
    assert rows(refused)[-1] == ("verdict of publish", ["", "refused"])
    assert "<h2>Verdict of publish" in evaluation_page(refused, b"")


def test_a_divergence_from_the_most_likely_tokens_is_named_a_lower_bound(report: Report) -> None:
    table = {row.title: row.cells for row in rows(report)}

    assert table["kl_mean.code"][1].startswith("≥ ")
    assert report.tiers[1].metrics["kl_mean.code"].bound == "lower"
    assert report.tiers[1].metrics["perplexity.code"].bound == ""


@pytest.mark.parametrize("change", ["nothing", "weights", "texts", "budget", "engine", "version"])
def test_another_checkpoint_text_setting_or_engine_is_measured_anew(tmp_path: Path, change: str) -> None:
    its = evaluation(tmp_path)
    folder = checkpoint(tmp_path / "bf16")
    store_results(its, find_candidates([CheckpointArg(folder)], LADDER, its.vllm)[0], 2.0)
    if change == "weights":
        (folder / "model.safetensors").write_bytes(b"new weights")
    texts, budget = ["y" if change == "texts" else "x"], 50 if change == "budget" else 100
    vllm = its.vllm.model_copy(update={"args": ("--enforce-eager",)}) if change == "engine" else its.vllm
    version = "vllm 0.33" if change == "version" else its.engine_version
    again = replace(
        its, measures=[Likelihood("code", texts, budget, 1), its.measures[1]], vllm=vllm, engine_version=version
    )

    found = again.stored(find_candidates([CheckpointArg(folder)], LADDER, vllm)[0])

    expected = {"nothing": {"text.code", "tasks"}, "texts": {"tasks"}, "budget": {"tasks"}}
    assert set(found) == expected.get(change, set())


def test_speed_and_memory_of_another_machine_are_measured_anew_and_nothing_else(tmp_path: Path) -> None:
    its, one = evaluation(tmp_path), candidate("int4")
    here, there = Pace(["x"], {"cpu": "fast"}), Pace(["x"], {"cpu": "slow"})
    store_results(its, one, 2.0)
    inputs = one.inputs(its.vllm, its.engine_version) | {"inputs": here.inputs}
    its.store.save(here.name, inputs, here.encode(paced(100)))

    assert set(replace(its, measures=[*its.measures, here]).stored(one)) == {"text.code", "tasks", "pace"}
    assert set(replace(its, measures=[*its.measures, there]).stored(one)) == {"text.code", "tasks"}


async def test_checkpoints_with_different_tokenizers_are_not_compared(tmp_path: Path) -> None:
    its = evaluation(tmp_path)
    ours = pair(tmp_path, its)
    store_results(its, ours[0], 2.0)
    store_results(its, ours[1], 2.0, tokens="others")

    report = await evaluate(ours[0], ours[1:], its, ABOUT)

    assert [tier.tier for tier in report.tiers] == ["bf16"]
    assert report.failed == {"int4": "its tokenizer is not the reference's, so they cannot be compared"}


def test_a_result_that_could_not_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    content: Any = [b"not", b"bytes"]  # fails while it is written, as on a disk that is full

    with pytest.raises(TypeError):
        store.save("code", {"a": 1}, content)

    assert list(tmp_path.iterdir()) == []
    assert store.load("code", {"a": 1}) is None


def test_a_result_is_found_by_all_that_it_depends_on(tmp_path: Path) -> None:
    store = Store(tmp_path)

    store.save("code", {"a": 1}, b"result")

    assert store.load("code", {"a": 1}) == b"result"
    assert store.load("code", {"a": 2}) is None
    assert store.load("tasks", {"a": 1}) is None
