"""Recipes fit the model they are for, and their hash tells any two apart."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from calibration.errors import RecipeError, UnknownTierError
from calibration.recipe import (
    RECIPES,
    TIERS,
    Numbers,
    Recipe,
    Shape,
    Storage,
    check_fits,
    recipe_for,
    recipe_hash,
)

INT4 = RECIPES["int4"]
GROUPS = Numbers(num_bits=4, type="int", strategy="group", group_size=64, symmetric=False)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_recipe_fits_the_model(recipe: Recipe) -> None:
    check_fits(recipe)


def test_the_tiers_are_named_lowest_quality_first_and_leave_out_the_reference() -> None:
    assert TIERS == ("int4", "int8", "fp8")


@pytest.mark.parametrize(
    ("group_size", "misfit"), [(128, "576"), (100, "576, 1536"), (0, "1 or more"), (None, "1 or more")]
)
def test_a_group_that_does_not_divide_every_input_width_is_refused(group_size: int | None, misfit: str) -> None:
    recipe = replace(INT4, weights=replace(GROUPS, group_size=group_size))

    with pytest.raises(RecipeError, match=misfit):
        check_fits(recipe)


def test_a_block_that_would_lie_across_stacked_layers_is_refused() -> None:
    blocks = Numbers(num_bits=8, type="float", strategy="block", block_structure=(128, 128))

    with pytest.raises(RecipeError, match="rows of a block must divide 192, 576, got 128"):
        check_fits(replace(RECIPES["fp8"], weights=blocks))


def test_a_wider_model_takes_larger_groups() -> None:
    recipe = replace(INT4, weights=replace(GROUPS, group_size=128))

    check_fits(recipe, Shape(input_widths=(4096, 14336), output_widths=(1024, 4096, 14336)))


def test_an_unknown_tier_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownTierError, match="'int3'; known are bf16, int4, int8, fp8"):
        recipe_for("int3")


def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from calibration.recipe import *; print(*(recipe_hash(r, s) for r in RECIPES.values() for s in Storage))"
    environ = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}

    other = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert other.stdout.split() == [recipe_hash(recipe, storage) for recipe in RECIPES.values() for storage in Storage]


def test_the_hash_changes_with_whatever_changes_the_bytes() -> None:
    variants = [
        (INT4, Storage.PACKED),
        (INT4, Storage.ROUNDED),
        (RECIPES["int8"], Storage.PACKED),
        (replace(INT4, calibration_samples=8), Storage.PACKED),
        (replace(INT4, weights=replace(GROUPS, group_size=32)), Storage.PACKED),
        (replace(INT4, max_perplexity_ratio=1.2), Storage.PACKED),
    ]

    hashes = {recipe_hash(recipe, storage) for recipe, storage in variants}

    assert len(hashes) == len(variants)
