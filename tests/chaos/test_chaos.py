"""A short chaos run; `make chaos` is the long one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.faults import Fault, Faults
from tests.chaos.run import Plan, run
from tests.chaos.scene import Kind


def short_faults(faults: Faults) -> Sequence[tuple[float, Fault]]:
    return (
        (2, faults.cut),
        (4, faults.kill_intake),
        (6, faults.kill_valkey),
        (10, faults.cut),
        (11, faults.stop_intake),
    )


# On a machine that is busy with other things it ends with fewer jobs, not later.
SHORT = Plan(jobs=100_000, clients=64, long_clients=0, most_s=14, script=short_faults)
LEAST_ACCEPTED = 150


@pytest.mark.parametrize("seed", [11])
def test_nothing_accepted_is_lost_or_answered_twice_while_everything_breaks(seed: int, tmp_path: Path) -> None:
    report = asyncio.run(run(SHORT, Kind(durability="fsync"), seed, tmp_path))

    assert report.found == []
    assert report.accepted >= LEAST_ACCEPTED
