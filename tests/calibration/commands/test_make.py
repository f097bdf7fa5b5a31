"""What a checkpoint is made of decides whether it must be made again."""

from __future__ import annotations

import json
from pathlib import Path

from calibration.commands.make import source_model, texts_of
from calibration.quantization.build import EXAMPLE
from calibration.quantization.installed_texts import texts_for
from calibration.quantization.standard_recipes import RECIPES
from tests.calibration.inspection.tiny import Tiny


def test_a_model_is_another_one_when_its_weights_or_its_configuration_changed(tmp_path: Path) -> None:
    model = Tiny().write(tmp_path / "model")
    before = source_model(model)

    assert source_model(model) == before
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"more")
    heavier = source_model(model)
    (model / "config.json").write_text(json.dumps(Tiny().config | {"rope_theta": 5}))

    identities = [json.dumps(subject.identity) for subject in (before, heavier, source_model(model))]
    assert len(set(identities)) == 3
    assert before.folder == model


def test_without_a_model_it_is_the_example() -> None:
    assert source_model(None) is EXAMPLE


def test_samples_that_are_given_replace_the_recipe_s_own(tmp_path: Path) -> None:
    recipe = RECIPES["int4-awq-g64"]
    (tmp_path / "calibration.jsonl").write_text('{"text": "mine"}\n' * 20)
    assert recipe.mix

    assert texts_of(recipe, tmp_path) == ("mine",) * 20
    assert texts_of(recipe, None) == tuple(texts_for(recipe.mix))
    assert texts_of(RECIPES["int8-rtn"], None) == ()
