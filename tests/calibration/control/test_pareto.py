"""Which tiers are left out, and what is said of it."""

from __future__ import annotations

import numpy as np

from calibration.control.pareto import pareto_front

COSTS = {"int4": 0.3, "int8": 0.45, "fp8": 1.0, "bf16": 2.0}


def test_a_tier_that_a_cheaper_one_beats_is_left_out_beyond_noise_or_within_it() -> None:
    chance = np.random.default_rng(0)
    int8 = chance.random(200) * 0.04
    added = {"int4": int8 + 0.1, "int8": int8, "fp8": int8 + 0.003}

    front = pareto_front(added, COSTS, "bf16")

    assert list(front.left_out) == ["fp8"]
    assert front.left_out["fp8"].startswith("int8 costs 0.45 of fp8's 1, and fp8 loses no less (+0.003 a request, 95 %")
    assert front.left_out["fp8"].endswith("200 labels: beyond noise)")
    noisy = pareto_front({**added, "fp8": int8 + 0.003 + chance.normal(0, 0.1, 200).clip(0)}, COSTS, "bf16")
    assert "fp8" in noisy.left_out
    noisy = pareto_front({**added, "fp8": np.roll(int8, 1) + 1e-6}, COSTS, "bf16")
    assert noisy.left_out["fp8"].endswith("200 labels: the difference is within noise)")


def test_a_dearer_tier_that_may_lose_less_is_kept_with_a_note() -> None:
    int8 = np.random.default_rng(0).random(200) * 0.04

    front = pareto_front({"int8": int8, "fp8": np.roll(int8, 1) - 1e-6}, COSTS, "bf16")

    assert front.left_out == {}
    assert front.notes["fp8"].startswith(
        "kept, but int8 costs 0.45 of fp8's 1, and that fp8 loses less is within noise"
    )


def test_a_tier_that_costs_as_much_as_the_top_is_left_out() -> None:
    front = pareto_front({"int4": np.ones(9), "int8": np.zeros(9)}, {"int4": 3.0, "int8": 1.0, "bf16": 3.0}, "bf16")

    assert front.left_out == {"int4": "it costs 3, and bf16, which loses nothing, costs 3"}
