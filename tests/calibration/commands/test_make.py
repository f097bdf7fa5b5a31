"""What a checkpoint is made of decides whether it must be made again."""

from __future__ import annotations

import json
from pathlib import Path

from calibration.commands.make import job_of, source_model
from calibration.quantization.build import EXAMPLE
from calibration.quantization.example import SMOLLM2
from calibration.quantization.quantize_task import QuantizeTask
from calibration.quantization.standard_recipes import RECIPES
from calibration.quantization.texts.installed_texts import texts_for
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


def test_samples_go_before_general_text_and_own_held_out_text_is_judged(tmp_path: Path) -> None:
    recipe = RECIPES["int4-awq-g64"]
    (tmp_path / "calibration.jsonl").write_text('{"text": "mine"}\n' * 20)
    task = QuantizeTask(
        recipe=recipe, cache=tmp_path, folder="made", weights=SMOLLM2, storage="packed", samples=tmp_path,
        heldout={"prose de": ["meins"]},
    )  # fmt: skip
    assert recipe.mix

    job = job_of(QuantizeTask.from_json(task.to_json()))

    assert (job.samples, job.samples_in_all) == (("mine",) * 20, 20)
    assert job.texts == tuple(texts_for(recipe.mix))
    assert [group.name for group in job.groups if group.is_judged] == ["own prose de"]


def test_without_samples_all_text_is_packaged_and_judged(tmp_path: Path) -> None:
    task = QuantizeTask(
        recipe=RECIPES["int8-rtn"], cache=tmp_path, folder="made", weights=SMOLLM2, storage="packed"
    )  # fmt: skip

    job = job_of(task)

    assert (job.samples, job.texts) == ((), ())
    assert all(group.is_judged for group in job.groups)
