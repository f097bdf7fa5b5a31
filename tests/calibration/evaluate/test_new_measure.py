"""A measure is a file with `prepare` and a row of METRICS for each of its metrics; nothing else has to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitladder.settings.publish_section import PublishSettings
from calibration.artifacts.metrics import METRICS, Better, Metric
from calibration.evaluate.choose_measures import choose_measures
from calibration.evaluate.evaluation_page import evaluation_page
from calibration.evaluate.heldout import by_kind, packaged_texts
from calibration.evaluate.measures.measure import EvaluationOptions
from calibration.evaluate.plot import quality_cost_png
from calibration.evaluate.report_table import rows
from calibration.publishing.gate import check_limits, judge
from tests.calibration.evaluate.test_engines import candidate, evaluation, run

OPTIONS = EvaluationOptions(heldout=None, tokens=100, top=1, problems=0, sandbox="auto", tasks=None)


async def test_a_new_measure_is_a_file_and_a_row_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric(
        measure="tests.calibration.evaluate.answer_length",
        better=Better.HIGHER,
        is_quality=True,
        unit=" characters",
        note="answer_chars is new.",
    )
    monkeypatch.setitem(METRICS, "answer_chars", metric)

    plan = choose_measures(OPTIONS)
    texts = {f"text.{kind}" for kind in by_kind(packaged_texts())}
    assert {measure.name for measure in plan.measures[:-2]} == texts
    assert [measure.name for measure in plan.measures[-2:]] == ["pace", "length"]
    assert plan.sources["one prompt"] == "0" * 64
    evaluator = evaluation(tmp_path, plan.measures[-1])  # the fake engine serves no /tokenize for the others
    report = await run(evaluator, candidate(tmp_path, "bf16"), candidate(tmp_path, "d"))

    assert [row.title for row in rows(report)] == ["answer_chars", "  of the reference", "verdict of publish"]
    assert rows(report)[0].cells == ["6 characters", "6 characters"]
    assert "<li>answer_chars is new.</li>" in evaluation_page(report, quality_cost_png(report))
    strict = PublishSettings(min_recovery={"answer_chars": 1.5}, min_tokens=1)
    assert check_limits(strict, report, of_one_model=True) == []
    verdict = judge(report.tiers[1], strict, report.machine, is_reference=False)
    assert "answer_chars keeps 1.000 of the reference" in verdict.reasons[0]
