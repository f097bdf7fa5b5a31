"""The figures of a load test, and its targets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bitladder.cli.ops.loadtest.load_plan import LoadRequest, Mode
from bitladder.cli.ops.loadtest.load_report import make_report, statistics
from bitladder.cli.ops.loadtest.request_sample import UNFINISHED, Sample
from bitladder.cli.ops.loadtest.shown import write_pairs
from bitladder.cli.ops.loadtest.targets import read_slo, read_targets
from bitladder.errors import ConfigError


def sample(due_s: float, took_s: float, *, late_s: float = 0, entropy: float = 4.0, **fields: Any) -> Sample:  # noqa: ANN401
    request = LoadRequest(0, due_s, "prose", "p", entropy, 8, Mode.CHAT, {})
    sent_s = due_s + late_s
    usual = {"tier": "int4", "completion_tokens": 10, "cost": 0.5, "status": 200}
    return Sample(request, due_s, sent_s, end_s=sent_s + took_s, **{**usual, **fields})


def test_percentiles_are_by_nearest_rank() -> None:
    assert statistics([]) is None
    assert statistics(range(1, 101)) == {
        "count": 100, "mean": 50.5, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100,
    }  # fmt: skip
    assert (statistics([3.0]) or {})["p99"] == 3.0


def test_what_was_sent_late_has_waited_since_it_was_due() -> None:
    """Coordinated omission: a client that waits for slow answers must not hide what users would have waited."""
    report = make_report([sample(0, 10), *(sample(second, 0.1, late_s=10 - second) for second in range(1, 10))], 0, {})

    assert report["latency"]["e2e"]["p50"] == pytest.approx(5.1)
    assert report["latency"]["e2e_from_send"]["p50"] == pytest.approx(0.1)
    assert report["latency"]["late_to_send"]["max"] == 9


def test_figures_by_tier_entropy_and_code_add_up() -> None:
    samples = [
        sample(0, 9),  # warm-up
        sample(1, 1),
        sample(2, 3, entropy=5.0, tier="int8", overflowed_from="int4", gaps_s=[0.1, 0.4]),
        sample(3, 0.1, code="queue_full", status=429, tier=""),
        sample(4, 0.1, code="engine_fault", message="it broke", status=500, tier=""),
        sample(5, 6, code=UNFINISHED, tier=""),
    ]
    report = make_report(samples, 1, read_slo("e2e=2s,itl=300ms"))

    assert report["requests"] == {
        "sent": 6, "warm_up": 1, "answered": 2, "refused": 1, "failed": 1, "unfinished": 1,
    }  # fmt: skip
    assert report["errors"] == {"queue_full": 1, "engine_fault": 1, UNFINISHED: 1}
    assert report["messages"] == {"engine_fault": "it broke"}
    assert report["shares"] == {"errors": 0.6, "refused": 0.2, "overflow": 0.5, "good": 0.2}
    assert report["throughput"] == {"throughput": 0.2, "tokens": 2.0, "input_tokens": 0.0, "goodput": 0.1}
    assert report["overflow"] == [{"from": "int4", "to": "int8", "requests": 1}]
    assert list(report["by_entropy"]) == ["3.5 to 4.5", "4.5 to 5.5"]
    assert {tier: group["requests"] for tier, group in report["by_tier"].items()} == {"int4": 1, "int8": 1}
    assert report["cost"] == {"total": 1.0, "per_request": 0.5, "per_1000_tokens": 50.0}
    assert make_report(samples, 1, {}, is_interrupted=True)["shares"]["errors"] == 0.5  # it was the tester who left


def test_a_run_without_any_request_has_a_report() -> None:
    report = make_report([], 0, {})

    assert (report["requests"]["sent"], report["latency"]["e2e"], report["throughput"]["throughput"]) == (0, None, 0.0)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("p95=20s", True),
        ("e2e_max=900ms", False),
        ("ttft_p95=2s", False),  # nothing streamed: it was not measured
        ("errors=0.1%", True),
        ("throughput=0.4", True),
        ("throughput=50", False),
        ("tokens=4", True),
        ("cost=0.4", False),
        ("overflow=0", True),
    ],
)
def test_a_target_is_met_or_missed(text: str, met: bool) -> None:
    report = make_report([sample(0, 1), sample(1, 1)], 0, {})

    (target,) = read_targets(text)

    assert target.judge(report)["met"] is met


@pytest.mark.parametrize(
    "text",
    [
        *("p97=1s", "p95", "p95=fast", "errors=few", "ttft=1s", "goodput=x", "nonsense=1", "errors=nan", "errors=-1"),
        *("errors=150%", "errors=2", "throughput=inf", "throughput=5%", "cost=nan", "cost=-1"),
    ],
)
def test_a_target_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--target"):
        read_targets(f"p95=1s,{text}")


def test_pairs_of_entropy_and_latency_are_written(tmp_path: Path) -> None:
    samples = [sample(1, 2, entropy=4.25), sample(1, 2, code="refused")]
    for name in ("pairs.csv", "pairs.json"):
        write_pairs(tmp_path / name, samples)

    (row,) = csv.DictReader((tmp_path / "pairs.csv").read_text(encoding="utf-8").splitlines())
    (entry,) = json.loads((tmp_path / "pairs.json").read_text(encoding="utf-8"))
    assert (float(row["entropy"]), float(row["latency_s"]), row["tier"]) == (4.25, 2.0, "int4")
    assert (entry["entropy"], entry["latency_s"], entry["ttft_s"]) == (4.25, 2.0, None)
