"""The article's scatter of entropy against latency: what it is drawn from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bitladder.decision import Decision, Score
from dispatcher.metrics.intake_metrics import IntakeMetrics
from tests.conftest import Stack


@pytest.mark.parametrize(
    ("entropy", "label"), [(0.0, "3"), (3.0, "3"), (4.3, "4.5"), (4.5, "4.5"), (8.0, "8"), (99, "8")]
)
def test_a_request_counts_for_the_class_of_its_prompts_entropy(entropy: float, label: str) -> None:
    metrics = IntakeMetrics()

    metrics.observe_entropy(Decision(score=Score(entropy=entropy)), 0.2)

    (family,) = [each for each in metrics.registry.collect() if each.name == "bitladder_awaited_by_entropy_seconds"]
    assert {sample.labels["entropy"] for sample in family.samples} == {label}


def test_awaited_and_streamed_requests_are_counted(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    for stream in (False, True):
        body = {"model": "smollm2", "prompt": "aaaa", "max_tokens": 2, "stream": stream}
        assert stack.http.post("/v1/completions", json=body).status_code == 200

    shown = stack.http.get("/metrics").text

    assert 'bitladder_awaited_by_entropy_seconds_count{entropy="3"} 2.0' in shown
