"""Quick checkpoints: there at once, marked, and replaced by measured ones."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from calibration.artifacts.manifest import is_checkpoint, read_fields, read_manifest
from calibration.commands.checkpoints import as_fields
from calibration.quantization.build import CheckpointJob, example_job
from calibration.quantization.judging.kind_figures import quality
from calibration.quantization.standard_recipes import QUICK, RECIPES, TIERS
from tests.calibration.conftest import GOOD, MakeBuilder, jobs
from tests.calibration.toy_quantizer import ToyQuantizer


def quick(*tiers: str) -> list[CheckpointJob]:
    return [example_job(tier, is_quick=True) for tier in tiers]


def test_quick_checkpoints_are_made_of_the_source_alone_and_are_not_measured(
    make_builder: MakeBuilder, cache: Path
) -> None:
    quantizer = ToyQuantizer({})  # knows no perplexity

    made = make_builder(quantizer).make(quick(*TIERS))

    assert quantizer.made == list(TIERS)  # no bf16
    assert [checkpoint.path for checkpoint in made] == [cache / tier for tier in TIERS]
    assert {as_fields(checkpoint)["perplexity"] for checkpoint in made} == {None}
    assert {quality(checkpoint.manifest) for checkpoint in made} == {"quick, not measured"}


def test_a_quick_checkpoint_is_marked_in_its_manifest(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make([*quick("int4"), *jobs("int8")])

    assert [read_fields(cache / tier)["quick"] for tier in ("int4", "int8")] == [True, False]
    assert is_checkpoint(cache / "int4")


def test_the_good_checkpoint_takes_the_place_of_the_quick_one(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make(quick("int4"))

    (good,) = make_builder().make(jobs("int4"))

    assert (good.path, good.skipped, good.manifest.quick) == (cache / "int4", False, False)
    assert good.manifest.perplexity == GOOD["int4"]
    manifest = read_manifest(cache / "int4")
    assert manifest is not None
    assert manifest.recipe_hash == good.manifest.recipe_hash


@pytest.mark.parametrize("recipe_hash", [None, "0" * 64])
def test_a_measured_checkpoint_is_never_replaced_by_a_quick_one(
    make_builder: MakeBuilder, cache: Path, recipe_hash: str | None
) -> None:
    make_builder().make(jobs("int4"))
    manifest = cache / "int4" / "manifest.json"
    if recipe_hash:  # of another release of the recipe: still better
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"recipe_hash": recipe_hash}))

    (left,) = make_builder(ToyQuantizer({})).make(quick("int4"))

    assert left.skipped
    assert left.manifest.perplexity == GOOD["int4"]


def test_a_quick_checkpoint_is_made_again_when_its_recipe_has_changed(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make(quick("int4"))
    manifest = cache / "int4" / "manifest.json"
    (same,) = make_builder().make(quick("int4"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"recipe_hash": "0" * 64}))

    (again,) = make_builder().make(quick("int4"))

    assert (same.skipped, again.skipped) == (True, False)


def test_quick_recipes_keep_the_numbers_that_engines_have_kernels_for() -> None:
    for tier, recipe in QUICK.items():
        good = next(other for other in RECIPES.values() if other.tier == tier)
        assert recipe.mix is None
        assert recipe.weights is not None
        assert good.weights is not None
        assert recipe.weights.num_bits == good.weights.num_bits


def test_every_step_of_a_quick_checkpoint_says_how_long_it_takes(make_builder: MakeBuilder) -> None:
    output = io.StringIO()

    make_builder(output=output).make(quick("int4"))

    begun = [line for line in output.getvalue().splitlines() if "..." in line]
    assert begun
    assert all("(about " in line for line in begun)
