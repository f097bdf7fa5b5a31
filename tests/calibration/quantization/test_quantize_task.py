"""What one environment checked is what the other one carries out."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.commands.quantize import default_folder
from calibration.environment import example_folder
from calibration.errors import WrongEnvironmentError
from calibration.quantization.example import SMOLLM2
from calibration.quantization.quantize_task import QuantizeTask, find_interpreter
from calibration.quantization.recipe import Toolkit
from calibration.quantization.standard_recipes import EXAMPLE, RECIPES
from calibration.sample.run_sampling import SampleOptions, sample
from calibration.sample.source import Packaged
from tests.calibration.commands.test_app import run
from tests.calibration.inspection.tiny import Tiny
from tests.warm_start import CALIBRATION

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
FULL = QuantizeTask(
    recipe=RECIPES["int8-rtn"],
    cache=Path("/cache"),
    folder="int8",
    weights=SMOLLM2,
    storage="packed",
    model=Path("/model"),
    samples=Path("/samples.jsonl"),
    memory=10**9,
    force=True,
    as_json=True,
)


@pytest.mark.parametrize(
    "task",
    [
        FULL,
        replace(FULL, model=None, samples=None, memory=None),
        *(replace(FULL, recipe=recipe) for recipe in RECIPES.values()),
    ],
)
def test_a_task_arrives_as_it_was_sent(task: QuantizeTask) -> None:
    assert QuantizeTask.from_json(task.to_json()) == task


def test_a_missing_environment_is_named_with_what_makes_it(tmp_path: Path) -> None:
    for toolkit, target in ((Toolkit.LLM_COMPRESSOR, "quantize-env"), (Toolkit.AUTOAWQ, "autoawq-env")):
        with pytest.raises(WrongEnvironmentError, match=f"there is no interpreter .*python.; `make {target}`"):
            find_interpreter(toolkit, tmp_path / "python")


def make_set(folder: Path) -> Path:
    plan = SampleOptions(count=24, heldout=8, min_prompts=2, max_chars=4000, memory_mb=16, seed=0)
    return sample(Packaged(), plan, folder, force=False, on_progress=lambda _: None).folder


def quantize(*options: str) -> tuple[int, str]:
    done = CALIBRATION.run("calibration", "quantize", *options, env=ENVIRONMENT)
    return done.returncode, done.stderr


def test_the_work_is_given_to_the_other_interpreter_once_everything_is_checked(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$5"; cat\n')
    python.chmod(0o755)
    model = Tiny().write(tmp_path / "tiny")

    done = run(
        *("-m", "bitladder.cli.main", "calibrate", "quantize", "--tier", "int8", "--recipe", "int8-rtn"),
        *("--model", str(model), "--out", str(tmp_path / "out" / "mine"), "--python", str(python)),
    )

    assert done.returncode == 0, done.stderr
    step, task = done.stdout.split("\n", 1)
    sent = QuantizeTask.from_json(task)
    assert (step, sent.recipe.name, sent.model) == ("make", "int8-rtn", model)
    assert (sent.cache, sent.folder) == (tmp_path / "out", "mine")
    assert "a checkpoint of 0.00 GB, at most" in done.stderr


def test_a_model_of_many_thousand_layers_is_handed_over_whole(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncat\n")
    python.chmod(0o755)
    wide = replace(FULL, weights=replace(SMOLLM2, linears=((14336, 4096),) * 20_000))
    (tmp_path / "wide.json").write_text(wide.to_json())
    code = (
        "import sys; from pathlib import Path; from calibration.quantization.quantize_task import *;"
        "exec_in(Path(sys.argv[1]), QuantizeTask.from_json(Path(sys.argv[2]).read_text()))"
    )

    done = run("-c", code, str(python), str(tmp_path / "wide.json"))

    assert done.returncode == 0, done.stderr
    assert QuantizeTask.from_json(done.stdout) == wide


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--recipe", "int4-autoawq-g64", "--memory-gb", "1"), "AutoAWQ keeps all weights in memory; drop --memory-gb"),
        (("--memory-gb", "inf"), "'--memory-gb'"),
        (("--python", "/"), "there is no interpreter '/'"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(options: tuple[str, ...], complaint: str) -> None:
    status, said = quantize("--tier", "int4", *options)

    assert status in {2, 3}
    assert complaint in said


def test_hours_are_not_spent_on_what_cannot_be_done(tmp_path: Path) -> None:
    model = Tiny().write(tmp_path / "tiny")
    (tmp_path / "few.jsonl").write_text('{"prompt": "one"}\n' * 3)

    assert quantize("--tier", "int5")[0] == 2
    status, said = quantize("--tier", "int4", "--model", str(model), "--samples", str(tmp_path / "few.jsonl"))
    assert (status, "3 samples are too few" in said) == (2, True)
    (model / "weights.bin").write_bytes(b"pickle")
    status, said = quantize("--tier", "int4", "--model", str(model))
    assert (status, "weights.bin: pickle runs code" in said) == (2, True)


def test_a_set_is_checked_and_what_is_held_out_is_refused(tmp_path: Path) -> None:
    model, samples = Tiny().write(tmp_path / "tiny"), make_set(tmp_path / "set")
    options = ("--tier", "int8", "--model", str(model), "--out", str(tmp_path / "out"), "--python", "/nowhere")

    status, said = quantize(*options, "--samples", str(samples / "heldout.jsonl"))
    assert (status, "--samples must not be held-out texts" in said) == (2, True)
    shutil.copy(samples / "heldout.jsonl", samples / "calibration.jsonl")
    status, said = quantize(*options, "--samples", str(samples))
    assert (status, "was changed since it was sampled: calibration.jsonl" in said) == (2, True)


@pytest.mark.parametrize("out", ["m/bf16", "m", "m/bf16/int8", "set", "set/in", "keep"])
def test_neither_the_model_nor_the_samples_nor_anything_else_is_written_over(tmp_path: Path, out: str) -> None:
    model = Tiny().write(tmp_path / "m" / "bf16")
    samples = make_set(tmp_path / "set")
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "thesis.txt").write_text("precious")
    before = sorted(path for path in tmp_path.rglob("*"))

    status, said = quantize(
        *("--tier", "int8", "--recipe", "int8-rtn", "--model", str(model)),
        *("--samples", str(samples), "--out", str(tmp_path / out), "--python", "/nowhere"),
    )

    assert (status, said.startswith("error: --"), said.count("\n")) == (2, True, 1)
    assert "--out must" in said or "must not be or lie in --out" in said
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_the_example_s_reference_is_not_written_over(tmp_path: Path) -> None:
    folder = example_folder() / "bf16"

    status, said = quantize("--tier", "int8", "--out", str(folder / "int8"), "--python", "/nowhere")

    assert (status, "--out must not be or lie in --model" in said) == (2, True)


def test_a_tier_on_hardware_without_its_units_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bitladder.toml"
    file.write_text('[models.m]\n[[models.m.tiers]]\nname = "fp8"\nhardware = "A10G"\ncheckpoint = "/none"\n')

    status, said = quantize("--tier", "fp8", "--config", str(file))

    assert (status, "A10G has no units for 8-bit float" in said) == (2, True)


def test_no_checkpoint_takes_the_folder_of_one_that_is_made_of_other_things(tmp_path: Path) -> None:
    recipe = RECIPES[EXAMPLE["int4"]]
    model, other_model = Tiny().write(tmp_path / "a" / "llama"), Tiny("bf16").write(tmp_path / "b" / "llama")
    samples = [tmp_path / f"{name}.jsonl" for name in "xy"]
    for path in samples:
        path.write_text("".join(json.dumps({"text": f"{path.stem} {number}"}) + "\n" for number in range(20)))
    made_of = [
        (recipe, None, None),
        (recipe, None, samples[0]),
        (recipe, model, None),
        (recipe, model, samples[0]),
        (recipe, model, samples[1]),
        (recipe, other_model, samples[0]),
        (RECIPES["int4-awq-g64"], model, samples[0]),
    ]

    folders = [default_folder(*parts) for parts in made_of]
    (model / "model.safetensors").write_bytes(b"new weights")

    assert len({*folders, default_folder(*made_of[3])}) == len(folders) + 1
    assert default_folder(*made_of[4]) != folders[4]
    assert folders[0] == example_folder() / "int4"
    assert all(
        folder.name.startswith(f"{parts[0].name}-") for folder, parts in zip(folders[1:], made_of[1:], strict=True)
    )
    assert {folder.parent.name for folder in folders[2:]} == {"llama"}
