"""Fleets that fit into memory, and those that are refused with the arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals
from calibration.simulation.fleet_file import Fleet, FleetTier, fit, read_fleet
from calibration.simulation.run_simulation import Scenario, simulate
from tests.calibration.simulation.fleets import LLAMA_8B, LLAMA_70B, curve_of, scenario_of

REQUESTS = Arrivals(at_s=np.arange(3.0), input_tokens=np.full(3, 1800.0), output_tokens=np.full(3, 200.0))


def test_the_articles_fleet_cannot_hold_a_70b_model_and_the_refusal_has_the_arithmetic(tmp_path: Path) -> None:
    ladder = [{"name": name, "slots": 16} for name in ("int4", "int8", "fp8")]
    scenario = scenario_of(tmp_path, ladder, curve_of({1: 0.01, 8: 0.01, 16: 0.02}))
    fleet = Fleet(
        model=LLAMA_70B,
        tiers={
            "int4": FleetTier(4, "c", bits=4.6, memory_gb=24),  # L4
            "int8": FleetTier(2, "c", bits=8.24, memory_gb=24),  # A10G
            "fp8": FleetTier(1, "c", bits=8.24, memory_gb=80),  # H100
        },
    )

    with pytest.raises(InputError) as refused:
        simulate(with_fleet(scenario, fleet), REQUESTS)

    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"tier {name} does not fit" for name in ("int4", "int8", "fp8")]
    assert "weights 70.6 billion x 4.6 bits / 8 = 40.6 GB" in lines[0]
    assert "KV cache 16 slots x 2000 tokens x 0.328 MB = 10.5 GB, together 51.1 GB" in lines[0]
    assert "usable 1 x 24 GB x 0.9 = 21.6 GB, 29.5 GB too few" in lines[0]


def with_fleet(scenario: Scenario, fleet: Fleet) -> Scenario:
    values = {name: getattr(scenario, name) for name in scenario.__slots__}
    return Scenario(**(values | {"fleet": fleet}))


@pytest.mark.parametrize(("bits", "gb", "fits"), [(4.6, 24, True), (16, 24, True), (16, 16, False)])
def test_an_8b_model_fits_on_every_gpu_of_the_article(bits: float, gb: float, fits: bool) -> None:
    tier = FleetTier(1, "c", bits=bits, memory_gb=gb)

    assert fit(LLAMA_8B, tier, 16, 2000).is_fitting is fits


FLEET = '[tiers.a]\nworkers = 1\ncurve = "c"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FLEET.replace("1", "-1"), "tiers.a.workers must be 0 or more, got -1"),
        (FLEET + "utilization = 1.5\n", "tiers.a.utilization must be 1 at most, got 1.5"),
        (FLEET + "bits = nan\n", "tiers.a.bits must be above 0, got nan"),
        (FLEET + "gpu = 2\n", "unknown field `gpu`"),
        ("[tiers", "fleet.toml: "),
        ("tiers = " + 50_000 * "[", "fleet.toml: "),
    ],
)
def test_a_wrong_fleet_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(text)

    with pytest.raises(InputError) as refused:
        read_fleet(tmp_path / "fleet.toml")

    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("tier", "says"),
    [
        ({"slots": 64}, "tier a: has 64 slots, but curve 'c' ends at concurrency 8"),
        ({"slots": 8, "workers": 0}, "nobody would ever serve floor a"),
    ],
)
def test_what_cannot_be_simulated_is_refused(tier: dict[str, float], says: str, tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, [{"name": "a"} | tier], curve_of({1: 0.01, 8: 0.01}))

    with pytest.raises(InputError, match=says):
        simulate(scenario, REQUESTS)
