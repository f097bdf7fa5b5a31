"""What a run takes, on paper: against what was measured for 135M, and for 70B."""

from __future__ import annotations

import pytest

from calibration.quantization.estimate import (
    Weights,
    checkpoint_bytes,
    disk_bytes,
    llama_weights,
    making_s,
    measuring_s,
    memory_bytes,
)
from calibration.quantization.example import SMOLLM2
from calibration.quantization.recipe import Storage
from calibration.quantization.standard_recipes import RECIPES

LLAMA_70B = llama_weights(hidden=8192, inner=28672, layers=80, heads=(64, 8), vocabulary=128256, is_tied=False)
GB = 10**9


def test_the_parameters_are_counted_right() -> None:
    assert SMOLLM2.parameters == 134_515_008
    assert LLAMA_70B.parameters == 70_553_706_496


@pytest.mark.parametrize(
    ("recipe", "megabytes"),
    # As the files were when they were made (docs/calibration/figures.md).
    [
        ("bf16", 269.1),
        ("int4-awq-g64", 113.9),
        ("int4-gptq-g32", 118.1),
        ("int8-rtn", 163.1),
        ("fp8-block-gptq", 162.9),
    ],
)
def test_the_size_of_a_checkpoint_is_known_before_it_is_made(recipe: str, megabytes: float) -> None:
    assert checkpoint_bytes(RECIPES[recipe], SMOLLM2) / 1e6 == pytest.approx(megabytes, rel=0.003)


def test_finer_numbers_of_some_layers_are_an_upper_bound_for_all() -> None:
    recipe = RECIPES["int4-gptq-g32-down16"]

    assert 120.3e6 < checkpoint_bytes(recipe, SMOLLM2) < 1.06 * 120.3e6
    assert 141.8e6 < checkpoint_bytes(RECIPES["int4-gptq-g32-qkv16"], SMOLLM2) < 2.02 * SMOLLM2.parameters


def test_an_int4_checkpoint_of_70b_is_a_quarter_of_bf16() -> None:
    share = checkpoint_bytes(RECIPES["int4-awq-g128"], LLAMA_70B) / checkpoint_bytes(RECIPES["bf16"], LLAMA_70B)

    assert 0.27 < share < 0.30


def test_spelled_out_weights_lie_beside_the_packed_ones_for_a_while() -> None:
    recipe = RECIPES["fp8-block-gptq"]

    both = disk_bytes(recipe, SMOLLM2, Storage.ROUNDED)

    assert both == checkpoint_bytes(recipe, SMOLLM2) + checkpoint_bytes(RECIPES["bf16"], SMOLLM2)


def peak(recipe: str, weights: Weights, *, texts: int = 72, memory: int | None = None) -> int:
    mix = RECIPES[recipe].mix
    sample = mix.tokens if mix else 0
    return memory_bytes(RECIPES[recipe], weights, tokens=texts * sample, sample=sample, memory=memory)


def test_70b_is_bounded_by_what_stays_in_memory_and_one_block_of_layers() -> None:
    whole, held = peak("int4-awq-gptq-g32", LLAMA_70B), peak("int4-awq-gptq-g32", LLAMA_70B, memory=16 * GB)

    assert whole > 282 * GB, "float32 weights alone"
    assert 30 * GB < held < 64 * GB
    # GPTQ's matrices: six of 8192 squared and one of 28672, and three more of that to invert it; in float32.
    matrices = (6 * 8192**2 + 4 * 28672**2) * 4
    assert held - peak("int4-awq-g128", LLAMA_70B, memory=16 * GB) == matrices


def test_weights_that_stay_on_disk_are_asked_of_the_disk() -> None:
    recipe = RECIPES["int4-awq-g128"]

    held = disk_bytes(recipe, LLAMA_70B, Storage.PACKED, memory=16 * GB)

    assert held - checkpoint_bytes(recipe, LLAMA_70B) == pytest.approx(141.1 * GB, rel=0.001)
    assert disk_bytes(recipe, SMOLLM2, Storage.PACKED, memory=16 * GB) == checkpoint_bytes(recipe, SMOLLM2)


def test_more_samples_take_more_memory_only_where_a_recipe_looks_at_them() -> None:
    few, many = (peak("int4-awq-g64", LLAMA_70B, texts=texts, memory=16 * GB) for texts in (1600, 12800))

    assert many > few
    assert peak("int8-rtn", LLAMA_70B, texts=12800) == peak("int8-rtn", LLAMA_70B, texts=16)


@pytest.mark.parametrize(
    ("recipe", "measured_s"),
    # CPU seconds of the example, loading and measuring included, with as many tokens as the recipe has (figures.md).
    [
        ("int4-gptq-g32", 247),
        ("int4-awq-g64", 123),
        ("int8-smoothquant-gptq", 243),
        ("fp8-static", 88),
        ("int8-rtn", 16),
    ],
)
def test_the_time_is_about_what_the_example_took(recipe: str, measured_s: float) -> None:
    expected_s = making_s(RECIPES[recipe], SMOLLM2) + measuring_s(SMOLLM2, 3)

    assert measured_s / 2 < expected_s < measured_s * 2


def test_a_large_model_is_expected_to_take_days_of_one_core_and_not_what_the_example_takes() -> None:
    assert 24 < making_s(RECIPES["int4-gptq-g32"], LLAMA_70B) / 3600 < 72
