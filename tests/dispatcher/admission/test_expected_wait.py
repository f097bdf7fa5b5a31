"""dispatcher/admission/expected_wait.py: what the status of a waiting job says of its wait, beside what comes of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.conftest import Stack, wait_until

BODY = {"model": "smollm2", "prompt": "aaaa", "max_tokens": 20}


def test_the_expected_wait_of_waiting_jobs_is_less_than_a_third_off(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_MODELS__SMOLLM2__TIERS__INT4__SLOTS="4")
    stack.intake()
    worker = stack.worker("int4")

    def job(job_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = stack.http.get(f"/v1/jobs/{job_id}").json()
        return shown

    ids = [stack.http.post("/v1/jobs", json=BODY).json()["id"] for _ in range(300)]
    # The rate of the very first seconds is that of a worker that has just begun.
    wait_until(lambda: job(ids[110])["status"] == "finished", "the service rate is known")
    seen = [(time.time(), job(job_id)) for job_id in ids[150::10]]
    waiting = [(at_s, shown) for at_s, shown in seen if shown["status"] == "queued"]
    wait_until(lambda: job(ids[-1])["status"] == "finished", "all jobs are over", timeout_s=60)
    errors = []
    for at_s, shown in waiting:
        over = job(shown["id"])
        real_ms = (over["enqueued_at"] - at_s) * 1000 + over["queue_ms"]
        errors.append(abs(shown["expected_wait_ms"] - real_ms) / real_ms)
    running = job(ids[-1])

    assert worker.poll() is None
    assert len(waiting) > 5
    assert statistics.median(errors) < 0.3
    assert all(
        0 <= low <= shown["expected_wait_ms"] <= high
        for _, shown in waiting
        for low, high in [shown["expected_wait_interval_ms"]]
    )
    assert all(shown["queue_position"] >= 1 for _, shown in waiting)
    assert "expected_wait_ms" not in running
