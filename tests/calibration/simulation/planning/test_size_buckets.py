"""Buckets of sizes, and the rates that a fleet is planned for."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals
from calibration.simulation.planning.size_buckets import demand_of


def arrivals_of(at_s: list[float], inputs: list[float], outputs: list[float]) -> Arrivals:
    return Arrivals(at_s=np.array(at_s), input_tokens=np.array(inputs), output_tokens=np.array(outputs))


def test_requests_of_a_size_share_a_bucket_whose_longest_counts_for_the_targets() -> None:
    demand = demand_of(arrivals_of([0, 1, 2, 10], [30, 90, 101, 90_000], [10, 20, 20, 5000]), "mean", 1.0)

    assert [(bucket.input_tokens, bucket.longest_input, bucket.share) for bucket in demand.buckets] == [
        (60, 90, 0.5),
        (101, 101, 0.25),
        (90_000, 90_000, 0.25),
    ]
    assert demand.of_request.tolist() == [0, 0, 1, 2]
    assert demand.per_s == pytest.approx(0.4)


def test_the_rate_is_the_mean_the_95th_percentile_or_the_peak_of_whole_windows() -> None:
    # A request each second, and ten in one of a hundred windows of a second.
    times = sorted([*(float(second) for second in range(101)), *(50 + part / 10 for part in range(1, 10))])
    requests = arrivals_of(times, [50.0] * len(times), [50.0] * len(times))

    rates = {rate: demand_of(requests, rate, 1.0).per_s for rate in ("mean", "p95", "peak")}

    assert rates == {"mean": pytest.approx(1.1), "p95": pytest.approx(1), "peak": pytest.approx(10)}
    without = demand_of(requests, "peak", 1000.0)
    assert without.rate == "mean"  # no whole window
    assert without.per_s == pytest.approx(1.1)


def test_requests_without_a_rate_or_with_too_many_windows_are_refused() -> None:
    with pytest.raises(InputError, match="their rate is unknown"):
        demand_of(arrivals_of([3, 3], [1, 1], [1, 1]), "mean", 60.0)
    with pytest.raises(InputError, match="--window: 1,000,000,0"):
        demand_of(arrivals_of([0, 1e6], [1, 1], [1, 1]), "p95", 0.001)
