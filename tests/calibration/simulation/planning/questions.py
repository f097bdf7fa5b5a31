"""Offers and questions of these tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from calibration.simulation.arrivals import Arrivals, Lengths, generate
from calibration.simulation.fleet_file import ModelShape
from calibration.simulation.outcome import Targets
from calibration.simulation.planning.make_plan import Aims, Question
from calibration.simulation.planning.offers_file import Device, Offers, Precision, options_of
from calibration.simulation.planning.size_buckets import demand_of
from tests.calibration.simulation.fleets import LLAMA_8B, curve_of

TARGETS = Targets(ttft_s=1.0, per_token_s=0.1)
# Time per token by concurrency, with the price and memory of one GPU, and the tier.
DEVICES: dict[str, tuple[Mapping[int, float], float, float, str]] = {
    "small": ({1: 0.03, 8: 0.05, 32: 0.1, 64: 0.2}, 0.7, 24, "int4"),
    "large": ({1: 0.008, 8: 0.01, 64: 0.02, 128: 0.03}, 3.2, 80, "fp8"),
}
LENGTHS = Lengths(kind="constant", input_tokens=200, output_tokens=100)


def requests_of(spec: str = "poisson:rate=10", count: int = 600, lengths: Lengths = LENGTHS, seed: int = 1) -> Arrivals:
    return generate(spec, count, lengths, seed)


def question_of(
    requests: Arrivals,
    devices: Mapping[str, tuple[Mapping[int, float], float, float, str]] = DEVICES,
    *,
    shape: ModelShape = LLAMA_8B,
    counts: Mapping[str, int] | None = None,
    rate: str = "mean",
    **aims: Any,  # noqa: ANN401  (the fields of Aims)
) -> Question:
    curves = {name: curve_of(times, ttft_s=0.1) for name, (times, *_) in devices.items()}
    bits = {"int4": 4.6, "fp8": 8.2}
    offers = Offers(
        ladder=("int4", "fp8"),
        model=shape,
        devices={
            name: Device(price, memory, {tier: Precision(name, bits[tier])}, (counts or {}).get(name))
            for name, (_, price, memory, tier) in devices.items()
        },
    )
    return Question(
        offers=offers,
        options=options_of(offers, curves),
        demand=demand_of(requests, rate, 10.0),
        aims=replace(Aims(targets=TARGETS, shares={}), **aims),
    )
