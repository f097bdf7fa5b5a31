"""deploy/kubernetes/scaling: what its queries say of real series, and what a day of arrivals makes of the replicas."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from benchmarks.simulation.autoscaler import Autoscaler, Trigger, desired, read_policy
from benchmarks.simulation.scaling import TIERS, day_of, simulate
from tests.conftest import ROOT

SCALING = ROOT / "deploy" / "kubernetes" / "scaling"
IDLE = {"load": 0.0, "age": 0.0, "cache": 0.0, "work": 0.0}
# Two intakes report the same queues; one worker is at work, half of it for a lower tier, one has just started.
SERIES = [
    *(
        {"series": f'bitladder_queue_{what}{{queue="smollm2:{queue}",instance="{intake}"}}', "values": value}
        for intake in ("a", "b")
        for what, queue, value in (
            ("depth", "fp8:urgent", "3"),
            ("depth", "fp8:normal", "20"),
            ("depth", "fp8:batch", "5000"),
            ("depth", "int8:normal", "700"),
            ("in_flight", "fp8:urgent", "0"),
            ("in_flight", "fp8:normal", "8"),
            ("in_flight", "fp8:batch", "4"),
            ("oldest_age_seconds", "fp8:urgent", "2"),
            ("oldest_age_seconds", "fp8:normal", "41"),
            ("oldest_age_seconds", "fp8:batch", "9000"),
            ("oldest_age_seconds", "int8:normal", "300"),
        )
    ),
    {"series": 'bitladder_worker_in_flight{model="smollm2",tier="fp8",pod="x"}', "values": "16"},
    {"series": 'vllm:kv_cache_usage_perc{model="smollm2",tier="fp8",pod="x"}', "values": "0.75"},
    {"series": 'vllm:kv_cache_usage_perc{model="smollm2",tier="fp8",pod="y"}', "values": "0.25"},
    {"series": 'vllm:kv_cache_usage_perc{model="smollm2",tier="int8",pod="z"}', "values": "1"},
]
QUIET = [one | {"values": "0"} for one in SERIES if one["series"].startswith("bitladder_queue_")]


@pytest.mark.skipif(not shutil.which("promtool"), reason="`make servers` installs promtool")
def test_the_queries_count_jobs_once_and_tell_an_empty_queue_from_missing_figures(tmp_path: Path) -> None:
    spec = yaml.safe_load((SCALING / "fp8.yaml").read_text(encoding="utf-8"))["spec"]
    queries = {one["name"]: one["metadata"]["query"] for one in spec["triggers"] if one["type"] == "prometheus"}
    expected: list[tuple[list[dict[str, str]], Mapping[str, float | None]]] = [
        (SERIES, {"load": 31, "age": 41, "cache": 0.5, "work": 1}),
        (QUIET, IDLE),  # the tier is at zero: no worker has any figure
        ([SERIES[-1]], {"load": None, "age": None, "cache": 0, "work": None}),  # no intake has
        ([*QUIET, SERIES[-4]], {"load": 0, "age": 0, "cache": 0, "work": 1}),  # it helps a lower tier
    ]
    tests = [
        {
            "input_series": series,
            "promql_expr_test": [
                {"expr": queries[name], "eval_time": "0", "exp_samples": [] if value is None else [{"value": value}]}
                for name, value in values.items()
            ],
        }
        for series, values in expected
    ]
    # Without labels, as they come out of sum(), max() and avg().
    for test in tests:
        for expr in test["promql_expr_test"]:
            for sample in expr["exp_samples"]:
                sample["labels"] = "{}"
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": tests}), encoding="utf-8")

    done = subprocess.run(["promtool", "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize(
    ("trigger", "value", "current", "ready", "wanted"),
    [
        (Trigger(True, 16, 0), 33, 1, 1, 3),
        (Trigger(True, 16, 0), 17, 1, 1, 1),  # within a tenth
        (Trigger(True, 16, 0), 33, 3, 1, 3),  # those that start count
        (Trigger(False, 30, 0), 60, 3, 1, 2),  # twice the ready ones, however many start
        (Trigger(False, 0.8, 1), 0.9, 4, 4, 5),
    ],
)
def test_replicas_are_reckoned_as_the_autoscaler_does(
    trigger: Trigger, value: float, current: int, ready: int, wanted: int
) -> None:
    assert desired(trigger, value, current, ready) == wanted


def test_the_top_tier_starts_with_the_first_job_and_ends_after_its_cool_down_alone() -> None:
    policy = read_policy(SCALING / "fp8.yaml")
    scaler = Autoscaler(policy)

    assert scaler.replicas(0, IDLE, 0, 0) == 0
    assert scaler.replicas(15, IDLE | {"load": 1.0, "work": 1.0}, 0, 0) == 1
    assert scaler.replicas(15 + policy.cooldown_s, IDLE, 1, 1) == 1
    assert scaler.replicas(30 + policy.cooldown_s, IDLE, 1, 1) == 0


def test_work_of_the_batch_lane_keeps_one_worker_and_asks_for_no_other() -> None:
    scaler = Autoscaler(read_policy(SCALING / "fp8.yaml"))

    assert scaler.replicas(0, IDLE | {"work": 1.0}, 0, 0) == 1
    assert {scaler.replicas(at, IDLE | {"work": 1.0}, 1, 1) for at in range(15, 7200, 15)} == {1}


def hour() -> list[tuple[float, int, int]]:
    """Return an hour of arrivals like the minutes of Azure's trace that are in the repository."""
    lines = (ROOT / "benchmarks" / "load" / "traces" / "azure-conv.csv").read_text(encoding="utf-8").splitlines()
    return [(float(at), 1000, int(tokens)) for at, tokens in csv.reader(line for line in lines if line[0] != "#")]


@pytest.mark.parametrize("name", ["shipped", "killed"])
def test_an_hour_of_arrivals_change_few_replicas_and_lose_no_job(name: str) -> None:
    jobs = day_of(hour(), hours=1, peak=3)

    figures = simulate(jobs, name, hours=1)

    assert figures["ended"] == len(jobs) > 10_000
    assert bool(figures["again"]) is (name == "killed")
    assert figures["attempts"] <= 2
    for tier in figures["tiers"].values():
        assert tier["reversals_in_an_hour"] <= 3
        assert tier["changes_in_an_hour"] <= 12


def test_the_page_shows_the_simulation_s_figures() -> None:
    page = (ROOT / "docs" / "operating" / "kubernetes.md").read_text(encoding="utf-8")
    results = ROOT / "benchmarks" / "simulation" / "results" / "scaling.json"
    figures = json.loads(results.read_text(encoding="utf-8"))

    assert figures["short"] is False
    for name, row in figures["rows"].items():
        tiers = [row["tiers"][tier] for tier in TIERS]
        keys = ("changes", "reversals_in_an_hour", "worker_hours", "wait_p95_s")
        cells = [" / ".join(f"{tier[key]:g}" for tier in tiers) for key in keys]
        assert f"| {name} | {' | '.join(cells)} | {row['again']} | {row['jobs'] - row['ended']} |" in page
