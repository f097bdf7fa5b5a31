"""calibration/artifacts/folder.py, --out: what cannot be written is said in one line, a full disk by its name."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from calibration.artifacts.folder import try_writing, writing
from calibration.errors import DiskFullError, InputError


def test_where_there_is_room_nothing_is_left_of_the_try(tmp_path: Path) -> None:
    try_writing(tmp_path / "new" / "out")

    assert [path.name for path in tmp_path.rglob("*")] == ["new", "out"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match=f"--out: cannot write to '{folder}': "):
            try_writing(folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_is_full_is_named_before_anything_is_done(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DiskFullError, match=f"the disk of {tmp_path} is full; make room or use --out"):
            try_writing(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_errors_of_ours_pass(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^mine$"), writing(tmp_path):
        raise InputError("mine")
