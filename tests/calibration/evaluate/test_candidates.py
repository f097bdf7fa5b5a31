"""Checkpoints: what is one, which tier it is, and with which settings it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitladder.settings.models_section import ModelSettings, TierSettings
from bitladder.settings.worker_section import VllmSettings
from calibration.artifacts.manifest import Manifest, write_manifest
from calibration.errors import InputError
from calibration.evaluate.candidates import CheckpointArg, find_candidates

LADDER = ModelSettings(
    tiers=(
        TierSettings(name="int4", checkpoint="{cache}/four", price_per_hour=0.7, vllm_args=("--enforce-eager",)),
        TierSettings(name="int8", checkpoint="{cache}/gone", price_per_hour=1.0),
        TierSettings(name="fp8"),
    )
)
MANIFEST = Manifest(
    tier="",
    recipe_hash="",
    fingerprint={},
    versions={},
    made_at="",
    seconds=1,
    weights=(),
    files=("config.json", "model.safetensors"),
    measured="",
    perplexity=1,
    reference_perplexity=1,
)


def checkpoint(folder: Path, weights: bytes = b"weights", made_for: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    if made_for:
        write_manifest(folder, replace(MANIFEST, tier=made_for))
    return folder


def names(tmp_path: Path, *given: str) -> list[str]:
    """Return what the checkpoints of these arguments are called; a folder of theirs is one of tmp_path."""
    told = [CheckpointArg.read(text) for text in given]
    inside = [replace(asked, folder=tmp_path / asked.folder) for asked in told]
    return [candidate.name for candidate in find_candidates(inside, LADDER, VllmSettings(cache_dir=str(tmp_path)))]


def test_a_checkpoint_of_the_ladder_is_its_tier_and_others_are_their_folder(tmp_path: Path) -> None:
    vllm = VllmSettings(cache_dir=str(tmp_path))
    four, other = checkpoint(tmp_path / "four"), checkpoint(tmp_path / "mine", b"more weights")

    found = find_candidates([CheckpointArg(other), CheckpointArg(four), CheckpointArg(other)], LADDER, vllm)

    assert [(candidate.name, candidate.path, candidate.tier.price_per_hour) for candidate in found] == [
        ("mine", other, 0),
        ("int4", four, 0.7),
    ]
    assert found[0].digest != found[1].digest
    assert [candidate.weight_bytes for candidate in found] == [12, 7]


def test_a_checkpoint_of_quantize_is_the_tier_that_it_was_made_for(tmp_path: Path) -> None:
    checkpoint(tmp_path / "int8-smoothquant-gptq", made_for="int8")
    checkpoint(tmp_path / "llama")

    assert names(tmp_path, "llama", "int8-smoothquant-gptq") == ["llama", "int8"]


def test_of_several_checkpoints_for_one_tier_the_one_that_is_served_is_it_or_none(tmp_path: Path) -> None:
    checkpoint(tmp_path / "four", made_for="int4")
    checkpoint(tmp_path / "int4-awq", made_for="int4")
    checkpoint(tmp_path / "int8-rtn", made_for="int8")
    checkpoint(tmp_path / "int8-gptq", made_for="int8")

    assert names(tmp_path, "four", "int4-awq", "int8-rtn", "int8-gptq") == ["int4", "int4-awq", "int8-rtn", "int8-gptq"]


def test_a_folder_that_is_called_as_a_tier_is_it_before_one_that_was_made_for_it(tmp_path: Path) -> None:
    checkpoint(tmp_path / "int8-rtn", made_for="int8")
    checkpoint(tmp_path / "int8")

    assert names(tmp_path, "int8-rtn", "int8") == ["int8-rtn", "int8"]


@pytest.mark.parametrize("folder", ["new", "new/int4", "made"])
def test_what_would_take_a_tier_s_place_is_measured_with_its_settings(tmp_path: Path, folder: str) -> None:
    checkpoint(tmp_path / "four")
    new = checkpoint(tmp_path / folder, b"new", made_for="int4" if folder == "made" else "")
    vllm = VllmSettings(cache_dir=str(tmp_path), args=("--max-model-len", "512"))

    (found,) = find_candidates([CheckpointArg(new, "int4" if folder == "new" else "")], LADDER, vllm)

    assert (found.name, found.tier.price_per_hour, found.tier.checkpoint) == ("int4", 0.7, str(new))
    assert found.inputs(vllm, "1")["engine"]["args"] == ["--max-model-len", "512", "--enforce-eager"]


def test_what_is_told_counts_and_the_served_one_keeps_its_settings_under_its_folder_s_name(tmp_path: Path) -> None:
    four, new = checkpoint(tmp_path / "four"), checkpoint(tmp_path / "new", b"new")

    found = find_candidates(
        [CheckpointArg(four), CheckpointArg(new, "int4")], LADDER, VllmSettings(cache_dir=str(tmp_path))
    )

    assert [(candidate.name, candidate.path) for candidate in found] == [("four", four), ("int4", new)]
    assert [candidate.tier.vllm_args for candidate in found] == [("--enforce-eager",)] * 2


def test_a_name_that_no_tier_has_is_a_name_and_a_path_may_have_an_equals_sign(tmp_path: Path) -> None:
    checkpoint(tmp_path / "Llama-3")
    checkpoint(tmp_path / "sub" / "a=b")

    assert names(tmp_path, "bf16=Llama-3") == ["bf16"]
    assert CheckpointArg.read("./sub=1/four") == CheckpointArg(Path("sub=1/four"))
    assert CheckpointArg.read("int4=/models/a=b") == CheckpointArg(Path("/models/a=b"), "int4")


def test_a_folder_that_is_given_with_and_without_its_tier_is_one_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine")

    assert names(tmp_path, "mine", "int8=mine") == ["int8"]


def test_a_tier_without_a_checkpoint_does_not_serve_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint(tmp_path / "mine"))

    assert names(tmp_path, "mine") == ["mine"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["empty"], "is no checkpoint: expected config"),
        (["a/same", "b/same"], "would both be called 'same': name one as TIER=FOLDER"),
        (["int4=a/same", "int4=b/same"], "would both be called 'int4': name one as TIER=FOLDER"),
        (["int4=a/same", "int8=a/same"], "must be one tier, got int4 and int8"),
        (["Not A Name"], "'Not A Name' cannot name a tier"),
        (["A=a/same"], "'A' cannot name a tier"),
    ],
)
def test_what_is_no_checkpoint_or_has_no_name_of_its_own_is_refused(
    tmp_path: Path, given: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("a/same", "b/same", "Not A Name"):
        checkpoint(tmp_path / folder)

    with pytest.raises(InputError) as caught:
        names(tmp_path, *given)

    assert said in str(caught.value)
