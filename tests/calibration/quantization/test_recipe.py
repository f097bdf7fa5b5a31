"""Recipes fit the model they are for, and their hash tells any two apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest

from benchmarks.recipes import comparison_recipes
from calibration.errors import RecipeError, UnknownTierError
from calibration.quantization.example import SMOLLM2
from calibration.quantization.recipe import (
    USES_AWQ,
    CalibrationMix,
    Method,
    NumberFormat,
    Recipe,
    Shape,
    Storage,
    Toolkit,
    check_fits,
    fingerprint,
    recipe_from,
    recipe_hash,
)
from calibration.quantization.standard_recipes import DEFAULT, EXAMPLE, RECIPES, TIERS, find_recipe

WIDE = Shape(input_widths=(4096, 14336), output_widths=(1024, 4096, 14336))
INT4 = RECIPES["int4-awq-g64"]
GROUPS = NumberFormat(num_bits=4, type="int", strategy="group", group_size=64, symmetric=False)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_recipe_fits_the_example_or_a_wider_model(recipe: Recipe) -> None:
    check_fits(recipe, WIDE if recipe.name == "int4-awq-g128" else SMOLLM2.shape)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_says_all_that_its_method_needs(recipe: Recipe) -> None:
    assert recipe.name.startswith(recipe.tier)
    assert (recipe.mix is not None) >= (recipe.method in USES_AWQ)
    if recipe.toolkit is Toolkit.LLM_COMPRESSOR:
        assert (recipe.scale_steps > 0) == (recipe.method in USES_AWQ)
    assert (recipe.smoothing > 0) == (recipe.smoothing_gated > 0) == (recipe.method is Method.SMOOTHQUANT_GPTQ)
    assert bool(recipe.finer) == (recipe.finer_weights is not None)


@pytest.mark.parametrize("recipe", comparison_recipes(), ids=lambda recipe: recipe.name)
def test_a_recipe_of_the_published_comparison_is_read_whole_and_fits_the_example(recipe: Recipe) -> None:
    check_fits(recipe, SMOLLM2.shape)

    assert recipe.name not in RECIPES
    assert recipe_from(json.loads(json.dumps(asdict(recipe)))) == recipe


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_reaches_another_process_whole(recipe: Recipe) -> None:
    assert recipe_from(json.loads(json.dumps(asdict(recipe)))) == recipe


def test_every_tier_has_a_default_that_makes_it() -> None:
    assert TIERS == ("int4", "int8", "fp8"), "the lowest quality first, without the reference"
    for defaults in (EXAMPLE, DEFAULT):
        assert {tier: RECIPES[name].tier for tier, name in defaults.items()} == {tier: tier for tier in defaults}


@pytest.mark.parametrize(("tier", "target"), [("int4", 0.15), ("int8", 0.025), ("fp8", 0.02)])
def test_the_example_is_refused_where_it_misses_the_target_of_its_tier_in_any_kind(tier: str, target: float) -> None:
    assert RECIPES[EXAMPLE[tier]].max_kl == target


def test_the_example_and_other_models_may_have_different_defaults() -> None:
    assert find_recipe("fp8", None, is_example=True).name == "fp8-block-gptq-qkv-down16"
    assert find_recipe("fp8", None, is_example=False).name == "fp8-dynamic"
    assert find_recipe("int8", "int8-rtn", is_example=False).name == "int8-rtn"


@pytest.mark.parametrize(
    ("group_size", "misfit"), [(128, "576"), (100, "576, 1536"), (0, "1 or more"), (None, "1 or more")]
)
def test_a_group_that_does_not_divide_every_input_width_is_refused(group_size: int | None, misfit: str) -> None:
    recipe = replace(INT4, weights=replace(GROUPS, group_size=group_size))

    with pytest.raises(RecipeError, match=misfit):
        check_fits(recipe, SMOLLM2.shape)


def test_a_block_that_would_lie_across_stacked_layers_is_refused() -> None:
    blocks = NumberFormat(num_bits=8, type="float", strategy="block", block_structure=(128, 128))

    with pytest.raises(RecipeError, match="rows of a block must divide 192, 576, got 128"):
        check_fits(replace(RECIPES["fp8-block-gptq"], weights=blocks), SMOLLM2.shape)


@pytest.mark.parametrize(
    ("tier", "name", "complaint"),
    [
        ("int3", None, "'int3'; known are int4, int8, fp8"),
        ("bf16", None, "'bf16'; known are int4, int8, fp8"),
        ("int4", "int8-rtn", "no recipe 'int8-rtn' for tier int4; known are int4-awq"),
    ],
)
def test_an_unknown_tier_or_recipe_is_an_error_that_lists_the_known_ones(
    tier: str, name: str | None, complaint: str
) -> None:
    with pytest.raises(UnknownTierError, match=complaint):
        find_recipe(tier, name, is_example=True)


def hash_of(recipe: Recipe, storage: Storage, *, texts: tuple[str, ...] = (), model: str = "a") -> str:
    return recipe_hash(fingerprint(recipe, storage, model={"name": model}, texts=texts, heldout=[]))


def test_the_hash_is_the_same_in_every_process() -> None:
    code = (
        "from calibration.quantization.standard_recipes import *; from calibration.quantization.recipe import *;"
        "of = {'model': {'name': 'a'}, 'texts': (), 'heldout': ()};"
        "print(*(recipe_hash(fingerprint(recipe, s, **of)) for recipe in RECIPES.values() for s in Storage))"
    )
    environ = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}

    other = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert other.stdout.split() == [hash_of(recipe, storage) for recipe in RECIPES.values() for storage in Storage]


def test_a_field_that_came_later_leaves_the_hashes_of_those_who_do_not_use_it() -> None:
    def said(recipe: Recipe) -> dict[str, Any]:
        return dict(fingerprint(recipe, Storage.PACKED, model={}, texts=(), heldout=())["recipe"])

    assert "finer" not in said(INT4)
    assert said(replace(INT4, finer=("layer",)))["finer"] == ("layer",)
    assert said(INT4)["dampening"] == 0.01, "a default may change, and what it was decides what was made"
    assert said(INT4)["weights"]["observer"] is None


def test_the_hash_changes_with_whatever_changes_the_bytes() -> None:
    recipes = [
        INT4,
        RECIPES["int8-rtn"],
        replace(INT4, mix=CalibrationMix(packaged=8, tokens=64)),
        replace(INT4, weights=replace(GROUPS, group_size=32)),
        replace(INT4, dampening=0.1),
        replace(INT4, smoothing=0.5),
        replace(INT4, propagates=False),
        replace(INT4, kept=("layer",)),
        replace(INT4, finer=("layer",), finer_weights=GROUPS),
        replace(INT4, max_perplexity_ratio=9.5),
        replace(INT4, max_kl=0.5),
    ]

    hashes = {hash_of(recipe, Storage.PACKED) for recipe in recipes}
    hashes |= {hash_of(INT4, Storage.ROUNDED)}
    hashes |= {hash_of(INT4, Storage.PACKED, texts=("other",)), hash_of(INT4, Storage.PACKED, model="b")}

    assert len(hashes) == len(recipes) + 3
