"""Service curves: what is refused by name, and what lies between points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitladder.errors import ConfigError
from bitladder.workload.speed_curves import read_curves
from tests.calibration.simulation.fleets import curve_of

CURVE: dict[str, Any] = {"name": "l4", "source": "s", "device": "L4", "version": "0.24", "mode": "SOL"}


def points(*values: tuple[int, float, float | None]) -> list[dict[str, Any]]:
    return [{"concurrency": load, "ttft_s": ttft, "time_per_token_s": time} for load, ttft, time in values]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"points": []}, "the first point must be that of concurrency 1"),
        ({"points": points((2, 0, 0.1))}, "the first point must be that of concurrency 1"),
        ({"points": points((1, 0, 0.1), (8, 0, None))}, "there is a hole at concurrency 8"),
        ({"points": points((1, 0, 0.1), (16, 0, 0.2))}, "there is a hole from concurrency 1 to 16"),
        ({"points": points((1, 0, -0.1))}, "time_per_token_s must be above 0 and finite at concurrency 1, got -0.1"),
        ({"points": points((1, -1, 0.1))}, "ttft_s must be 0 or more and finite at concurrency 1, got -1"),
        ({"points": points((1, 0, 0.1), (2, 0, 0.05))}, "must not fall with load, but does from concurrency 1 to 2"),
        ({"points": points((1, 0.2, 0.1), (2, 0.1, 0.1))}, "ttft_s must not fall with load"),
        ({"points": points((1, 0, 0.1), (1, 0, 0.1))}, "concurrencies must grow, got 1 behind 1"),
        ({"points": [{"concurrency": 1, "ttft_s": 0, "tokens_per_s": 0}]}, "tokens_per_s must be above 0"),
        ({"points": points((1, 0, 0.1)), "mode": " "}, "mode must say something"),
    ],
)
def test_a_curve_that_cannot_be_is_refused_by_name(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "curves.json").write_text(json.dumps({"curves": [CURVE | changes]}))

    with pytest.raises(ConfigError) as refused:
        read_curves(tmp_path / "curves.json")

    assert "curve 'l4': " in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"curves": [{"name": "a"}]}', '{"curves": [], "more": 1}', '{"curves": ' + 50_000 * "["]
)
def test_a_file_that_is_no_curves_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "curves.json").write_text(text)

    with pytest.raises(ConfigError, match=r"curves\.json"):
        read_curves(tmp_path / "curves.json")


def test_between_points_the_time_per_token_grows_evenly() -> None:
    rates = curve_of({1: 0.1, 3: 0.2}).job_rates(3)

    assert [1 / rate for rate in rates[1:]] == pytest.approx([0.1, 0.15, 0.2])
