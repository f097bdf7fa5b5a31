"""Which samples a recipe may be calibrated on: a whole set, or any other file, but never what is measured on."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from calibration.errors import CalibrationError, InputError
from calibration.sample.sets import SampledText, SampleSet, checked_samples, write_manifest, write_texts
from calibration.sample.source import LocalFiles, Packaged
from tests.calibration.sample.conftest import RunSample, prompts, write_jsonl


def test_a_set_is_named_by_its_folder_or_by_its_calibration_half(out: Path, run_sample: RunSample) -> None:
    run_sample(Packaged())

    assert checked_samples(out) == out
    assert checked_samples(out / "calibration.jsonl") == out


def test_any_other_file_is_taken_as_it_is(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    run_sample(Packaged())
    for path in (tmp_path / "heldout.jsonl", out / "mine.jsonl", tmp_path / "none.jsonl"):
        if path.stem != "none":
            path.write_text('{"text": "one"}\n')
        assert checked_samples(path) == path


def test_held_out_texts_are_no_samples(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    run_sample(Packaged())
    (tmp_path / "link.jsonl").symlink_to(out / "heldout.jsonl")

    for path in (out / "heldout.jsonl", out / "skipped.jsonl", tmp_path / "link.jsonl"):
        with pytest.raises(InputError, match=r"--samples must not be held-out texts, .*got '.*jsonl'; the set .*mine'"):
            checked_samples(path)


@pytest.mark.parametrize("name", ["", "calibration.jsonl"])
def test_a_set_that_was_changed_or_is_mixed_is_no_samples(out: Path, run_sample: RunSample, name: str) -> None:
    run_sample(Packaged())
    shutil.copy(out / "heldout.jsonl", out / "calibration.jsonl")
    with pytest.raises(InputError, match=r"was changed since it was sampled: calibration\.jsonl"):
        checked_samples(out / name)

    texts = tuple(SampledText(**json.loads(line)) for line in (out / "heldout.jsonl").read_text().split("\n")[:-1])
    files = write_texts(out, SampleSet(calibration=texts, heldout=texts), [])
    write_manifest(out, {"request": {"sampler": 0}, "files": files})
    with pytest.raises(CalibrationError, match="the set is mixed"):
        checked_samples(out / name)


def test_a_folder_that_is_no_set_says_what_makes_one(tmp_path: Path) -> None:
    (tmp_path / "calibration.jsonl").write_text('{"text": "one"}\n')

    with pytest.raises(InputError, match=r"is no sampled set .*; `bitladder calibrate sample` makes one"):
        checked_samples(tmp_path)


def test_a_line_that_is_nested_without_end_is_no_text_of_a_set(out: Path, run_sample: RunSample) -> None:
    run_sample(Packaged())
    (out / "calibration.jsonl").write_text("[" * 100_000)

    with pytest.raises(InputError, match="is no sampled set"):
        checked_samples(out)


def test_only_the_owner_can_read_a_set(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    run_sample(LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(100))))

    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
