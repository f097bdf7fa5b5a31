"""A short chaos run; `make chaos` is the long one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.faults import Fault, Faults
from tests.chaos.run import Plan, run
from tests.chaos.system.scene import Kind


def one_long_outage(faults: Faults) -> Sequence[tuple[float, Fault]]:
    """Take Valkey away for longer than the lease while long jobs run; then break what else there is to break."""
    return (
        (0, faults.cut_valkey_off_silently),
        (23.5, faults.stop_highest_worker_for_long),
        (24, faults.kill_highest_worker),
        (25, faults.kill_intake),
        (26, faults.cut),
        (28, faults.stop_valkey),
        (31, faults.lose_last_second),
        (33, faults.hold),
    )


# On a machine that is busy with other things it ends with fewer jobs, not later.
SHORT = Plan(jobs=100_000, clients=64, long_clients=20, long_jobs=20, max_s=34, script=one_long_outage)
MIN_ACCEPTED = 150


@pytest.mark.parametrize("seed", [11])
def test_nothing_accepted_is_lost_or_answered_twice_while_everything_breaks(seed: int, tmp_path: Path) -> None:
    report = asyncio.run(run(SHORT, Kind(), seed, tmp_path))

    assert report.found == []
    assert report.lease_s == 15
    assert report.longest_s > report.lease_s
    assert report.accepted >= MIN_ACCEPTED
