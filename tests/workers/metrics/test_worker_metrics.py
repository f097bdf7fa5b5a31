"""What a worker shows before anything happened, and what it counts of a job's end."""

from __future__ import annotations

import time

import pytest

from bitladder.contract import Claimed, Outcome, State, Usage
from bitladder.process.metric_table import OTHERS
from workers.clock import ServerClock
from workers.metrics.worker_metrics import WorkerMetrics


@pytest.mark.parametrize("state", ["finished", "failed", "cancelled", "expired"])
def test_every_end_is_counted_from_0_on(state: str) -> None:
    labels = {"model": "m", "tier": "int4", "state": state}

    assert WorkerMetrics("m", "int4").registry.get_sample_value("bitladder_jobs_ended_total", labels) == 0


def claimed(enqueued_ms: int, deadline_ms: int | None) -> Claimed:
    return Claimed(
        job_id="j",
        queue="m:int4:normal",
        data=b"",
        attempt=1,
        fence=1,
        enqueued_ms=enqueued_ms,
        deadline_ms=deadline_ms,
        claimed_ms=enqueued_ms,
    )


def test_an_end_counts_the_whole_time_the_share_of_the_deadline_the_attempts_and_the_tenant_s_tokens() -> None:
    clock, now_ms = ServerClock(), 1_000_000
    clock.observe(now_ms, time.monotonic())
    metrics = WorkerMetrics("m", "int4", clock)
    outcome = Outcome(state=State.FINISHED, status=200, attempts=2, usage=Usage(prompt_tokens=5, completion_tokens=7))
    for deadline_ms in (now_ms + 10_000, None):
        metrics.count_end(claimed(now_ms - 10_000, deadline_ms), outcome, "acme")
    metrics.count_expired(2)

    def value(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": "m", "tier": "int4", **more})

    assert (value("bitladder_job_seconds_bucket", le="10.0"), value("bitladder_job_seconds_bucket", le="30.0")) == (
        0,
        2,
    )
    used = "bitladder_deadline_used_ratio"
    assert (value(f"{used}_bucket", le="0.5"), value(f"{used}_bucket", le="0.75")) == (0, 1)
    assert (value(f"{used}_bucket", le="0.99"), value(f"{used}_count")) == (1, 3)
    assert (value("bitladder_job_attempts_bucket", le="1.0"), value("bitladder_job_attempts_bucket", le="2.0")) == (
        0,
        2,
    )
    assert value("bitladder_tenant_tokens_total", tenant="acme", kind="completion") == 14


def test_the_tenants_that_use_most_have_labels_and_no_counter_goes_back() -> None:
    metrics = WorkerMetrics("m", "int4")

    def seen() -> dict[str, float]:
        rows = (row for family in metrics.registry.collect() for row in family.samples)
        return {
            row.labels["tenant"]: row.value
            for row in rows
            if row.name == "bitladder_tenant_tokens_total" and row.labels["kind"] == "completion"
        }

    for number in range(400):  # each uses alike: who came first keeps its label
        metrics.tenants.add_tokens(f"t{number}", 0, 10)
        metrics.tenants.add_cost(f"t{number}", 1)
    first = seen()
    assert set(first) == {*(f"t{number}" for number in range(50)), OTHERS}
    assert first[OTHERS] == 3500

    earlier = first
    for number in range(100):  # a newcomer among small ones
        metrics.tenants.add_tokens("big", 0, 5)
        metrics.tenants.add_cost("big", 1)
        metrics.tenants.add_tokens(f"small{number}", 0, 1)
        after = seen()
        assert all(after[tenant] >= value for tenant, value in earlier.items() if tenant in after)
        assert len(after) <= 51
        earlier = after
    assert after["big"] == 480  # what it used until it was seen to use more is with the others
    assert sum(tenant.startswith("small") for tenant in after) == 0
    assert metrics.registry.get_sample_value("bitladder_cost_total", {"model": "m", "tier": "int4", "tenant": "big"})


def test_the_ratio_of_nan_falls_as_good_answers_follow() -> None:
    metrics, labels = WorkerMetrics("m", "int4"), {"model": "m", "tier": "int4"}

    def ratio() -> float:
        return metrics.registry.get_sample_value("bitladder_engine_nan_ratio", labels) or 0.0

    assert ratio() == 0
    for _ in range(100):
        metrics.count_answer()
    metrics.count_corrupted("counter")
    assert ratio() == pytest.approx(0.01, rel=0.1)
    for _ in range(3000):
        metrics.count_answer()
    assert 0 < ratio() < 0.001
