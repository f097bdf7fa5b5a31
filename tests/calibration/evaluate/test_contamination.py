"""Held-out text that a checkpoint was calibrated on is none, as far as files can tell."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.manifest import write_manifest
from calibration.errors import InputError
from calibration.evaluate.candidates import Candidate, CheckpointArg, find_candidates
from calibration.evaluate.contamination import refuse_calibrated
from calibration.evaluate.heldout import HeldoutText, heldout_digest, read_heldout, read_texts
from calibration.quantization.recipe import CalibrationMix, Recipe, Storage, fingerprint
from calibration.quantization.standard_recipes import RECIPES
from calibration.quantization.texts import calibration_texts as prompts
from calibration.quantization.texts.calibration_texts import first_texts
from calibration.sample.run_sampling import SampleOptions, sample
from calibration.sample.sets import SampleSet, write_texts
from calibration.sample.sets import write_manifest as write_set
from calibration.sample.source import Packaged
from tests.calibration.evaluate.test_candidates import LADDER, MANIFEST, checkpoint

GPTQ = RECIPES["int4-gptq-g32"]
TEXTS = [f"Text number {number} is longer than most. " * 100 for number in range(100)]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = SampleOptions(count=20, heldout=10, min_prompts=2, max_chars=10_000, memory_mb=16, seed=0)
    folder = tmp_path_factory.mktemp("samples") / "set"
    return sample(Packaged(), plan, folder, force=False, on_progress=lambda progress: None).folder


def test_the_held_out_half_of_a_sampled_set_is_read_as_its_file_is(sampled: Path) -> None:
    found = read_heldout(sampled / "heldout.jsonl")

    assert found
    assert heldout_digest(found) == heldout_digest(read_texts(sampled / "heldout.jsonl"))


@pytest.mark.parametrize("name", ["calibration.jsonl", "skipped.jsonl"])
def test_another_file_of_a_sampled_set_is_refused_by_whatever_name(sampled: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "heldout.jsonl").symlink_to(sampled / name)

    for path in (sampled / name, tmp_path / "heldout.jsonl"):
        with pytest.raises(InputError, match=r"is not held out, expected '.*/set/heldout\.jsonl'"):
            read_heldout(path)


def test_a_set_that_was_changed_is_refused(sampled: Path, tmp_path: Path) -> None:
    for path in sampled.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "heldout.jsonl").open("a") as file:
        file.write((tmp_path / "calibration.jsonl").read_text().splitlines()[0] + "\n")

    with pytest.raises(InputError, match=r"was changed since it was sampled: heldout\.jsonl"):
        read_heldout(tmp_path / "heldout.jsonl")


@pytest.mark.parametrize("manifest", ["{", "[]", '{"files": []}', '{"request": {}, "files": [{"name": "own.jsonl"}]}'])
def test_a_file_beside_another_manifest_is_a_file_of_one_s_own(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "own.jsonl").write_text('{"text": "x = 1", "kind": "code"}\n')

    assert read_heldout(tmp_path / "own.jsonl") == [HeldoutText("code", "x = 1")]


def made(folder: Path, recipe: Recipe, texts: list[str]) -> Candidate:
    """Return a checkpoint that `quantize` made with these samples."""
    checkpoint(folder)
    samples = first_texts(recipe.mix, texts) if recipe.mix else ()
    its = fingerprint(recipe, Storage.PACKED, model={}, texts=(), samples=samples, heldout=())
    its = json.loads(json.dumps(its))  # as it is read back
    write_manifest(folder, replace(MANIFEST, tier=recipe.tier, fingerprint=its))
    return find_candidates([CheckpointArg(folder)], LADDER, VllmSettings(cache_dir="/nowhere"))[0]


def test_texts_that_a_checkpoint_was_calibrated_on_are_refused(tmp_path: Path) -> None:
    candidate = made(tmp_path / "new", GPTQ, TEXTS)
    own = [HeldoutText("text", text) for text in TEXTS]

    with pytest.raises(InputError, match="checkpoint int4 was calibrated on these texts"):
        refuse_calibrated(own, [candidate])
    refuse_calibrated(own[1:], [candidate])


def test_a_file_that_a_checkpoint_was_calibrated_on_is_known_in_the_order_that_was_taken(tmp_path: Path) -> None:
    file, few = tmp_path / "own.jsonl", replace(GPTQ, mix=CalibrationMix(packaged=20, tokens=64))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    candidate = made(tmp_path / "new", few, prompts.read_texts(file))

    with pytest.raises(InputError, match="checkpoint int4 was calibrated on these texts"):
        refuse_calibrated(read_heldout(file), [candidate])


@pytest.mark.parametrize("fields", [{}, {"recipe": None}, {"recipe": asdict(GPTQ)}, {"recipe": {"name": "mine"}}])
def test_a_checkpoint_that_says_nothing_of_its_texts_passes(tmp_path: Path, fields: dict[str, object]) -> None:
    candidate = made(tmp_path / "new", GPTQ, TEXTS)
    write_manifest(candidate.path, replace(MANIFEST, tier="int4", fingerprint=fields))

    refuse_calibrated([HeldoutText("text", text) for text in TEXTS], [candidate])


def test_a_recipe_that_looks_at_no_texts_was_calibrated_on_none(tmp_path: Path) -> None:
    refuse_calibrated([HeldoutText("text", "x")], [made(tmp_path / "new", RECIPES["int8-rtn"], TEXTS)])


def test_a_set_that_holds_nothing_out_is_refused(tmp_path: Path) -> None:
    files = write_texts(tmp_path, SampleSet(calibration=(), heldout=()), [])
    write_set(tmp_path, {"request": {"sampler": 0}, "files": files})

    with pytest.raises(InputError, match=r"--heldout: there is no text in '.*heldout\.jsonl': sample more prompts"):
        read_heldout(tmp_path / "heldout.jsonl")
