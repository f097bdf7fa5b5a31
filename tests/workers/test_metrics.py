"""What a worker shows before anything happened: a rate of what fails needs to have seen that nothing did."""

from __future__ import annotations

import pytest

from workers.metrics import WorkerMetrics


@pytest.mark.parametrize("state", ["finished", "failed", "cancelled", "expired"])
def test_every_end_is_counted_from_0_on(state: str) -> None:
    labels = {"model": "m", "tier": "int4", "state": state}

    assert WorkerMetrics("m", "int4").registry.get_sample_value("bitladder_jobs_ended_total", labels) == 0
