"""What labels say of the traffic, against sums by hand and intervals of the literature."""

from __future__ import annotations

from typing import Any

import pytest

from calibration.control.shadow.metric_rows import ROWS, values_of
from calibration.control.shadow.shadow_figures import Outcome, outcome_of, summarize


def label(kl: float, flips: float = 0.5, *, served_by: str = "int4", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    tiers = {served_by: {"answer": {"kl": kl, "flips": flips}}}
    return {"job": "a", "served_by": served_by, "reference": "fp8", "tiers": tiers} | fields


def outcomes(*labels: dict[str, Any]) -> list[Outcome]:
    read = [outcome_of(one, "answer.kl", 0.2) for one in labels]
    assert None not in read
    return [outcome for outcome in read if outcome]


@pytest.mark.parametrize(
    ("tier", "reference", "kl", "flips", "verdict"),
    [
        (None, None, 9.0, 0.0, "tie"),  # the same answer, whatever the probabilities
        (None, None, 0.1, 0.5, "tie"),
        (None, None, 0.3, 0.5, "loss"),
        (0, 1, 0.3, 0.5, "win"),
        (1, 0, 0.1, 0.5, "loss"),
        (1, 1, 0.3, 0.5, "tie"),
    ],
)
def test_a_verdict_goes_by_the_answer_then_the_check_then_the_loss(
    tier: int | None, reference: int | None, kl: float, flips: float, verdict: str
) -> None:
    line = label(kl, flips)
    if tier is not None:
        line["tiers"]["int4"]["task"], line["tiers"]["fp8"] = {"wrong": tier}, {"task": {"wrong": reference}}

    assert outcomes(line)[0].verdict == verdict


def test_figures_are_those_of_the_labels() -> None:
    losing = [label(0.4)] * 5 + [label(0.1)] * 15
    figures = summarize(outcomes(*losing, *[label(0.0, served_by="fp8")] * 20))
    low, everything = figures["tiers"]["int4"], figures["all_traffic"]

    assert list(figures["tiers"]) == ["int4"]
    assert low["over"]["share"] == 0.25
    assert low["over"]["interval"] == pytest.approx([0.1119, 0.4687], abs=1e-4)  # Wilson's, of 5 in 20
    assert low["mean_loss"]["value"] == pytest.approx(0.175)
    assert low["mean_loss"]["interval"][0] < 0.175 < low["mean_loss"]["interval"][1]
    assert (low["tie"]["count"], low["loss"]["count"], low["win"]["count"], low["same"]["count"]) == (15, 5, 0, 0)
    assert everything["labels"] == 40
    assert everything["over"]["share"] == 0.125


def test_savings_are_of_the_requests_whose_costs_are_known() -> None:
    known = {"served": 1.0, "reference": 4.0}
    figures = summarize(outcomes(label(0.1, costs=known), label(0.1, costs=known | {"served": 3.0}), label(0.1)))

    assert figures["savings"]["requests"] == 2
    assert figures["savings"]["per_request"] == 2.0
    assert figures["savings"]["share"] == 0.5
    assert summarize([])["savings"] == {"requests": 0}


def test_a_label_without_the_measure_has_no_outcome() -> None:
    assert outcome_of(label(0.1), "task.wrong", 0.5) is None


def test_every_metric_has_a_value() -> None:
    figures = summarize(outcomes(label(0.4), label(0.1, costs={"served": 1.0, "reference": 4.0})))
    prompts = {"seen": 9, "waiting": 1, "skipped": {"tenant": 2}}
    values = values_of(figures | {"prompts": prompts, "usage": {"total": {"requests": 8, "cost": 0.5}}})

    assert {row.name for row in ROWS} == set(values)
    assert [name for name, value in values.items() if value is None or value == {}] == []
