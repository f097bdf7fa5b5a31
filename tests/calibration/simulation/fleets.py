"""Fleets, curves and configurations of these tests, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibration.commands.configuration import load_configuration
from calibration.simulation.fleet_file import Fleet, FleetTier, ModelShape
from calibration.simulation.run_simulation import Scenario
from calibration.simulation.service_curves import Curve, Point

LLAMA_8B = ModelShape(parameters=8.03e9, layers=32, kv_heads=8, head_dim=128)
LLAMA_70B = ModelShape(parameters=70.6e9, layers=80, kv_heads=8, head_dim=128)


def curve_of(times: Mapping[int, float], ttft_s: float = 0.0) -> Curve:
    """Return a curve of times per token by concurrency."""
    points = tuple(Point(load, ttft_s, time_per_token_s=time_s) for load, time_s in times.items())
    return Curve("c", "a test", "none", "0", "made up", points)


def scenario_of(
    folder: Path,
    tiers: Sequence[Mapping[str, Any]],
    curve: Curve,
    shares: Mapping[str, float] | None = None,
    *,
    model: str = "",
    more: str = "",
) -> Scenario:
    """Return a scenario of tiers: settings as the configuration has them, and `workers`.

    `model`: what the model's table has beside them; `more`: further tables.
    """
    text = f"{more}\n[models.m]\n{model}\n"
    for tier in tiers:
        values = "\n".join(f"{name} = {json.dumps(value)}" for name, value in tier.items() if name != "workers")
        text += f"[[models.m.tiers]]\n{values}\n"
    (folder / "bitladder.toml").write_text(text)
    return Scenario(
        settings=load_configuration(str(folder / "bitladder.toml")),
        model="m",
        fleet=Fleet({tier["name"]: FleetTier(tier.get("workers", 1), "c") for tier in tiers}),
        curves={"c": curve},
        shares=shares or {tiers[0]["name"]: 1.0},
    )
