"""A digest that is remembered is that of the bytes: any file that changes is read anew."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from bitladder.settings import checkpoint_digest as module
from bitladder.settings.checkpoint_digest import DigestStoppedError, checkpoint_digest, remembered_digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkpoint that counts as one that was made a while ago."""
    monkeypatch.setattr(module, "_MIN_AGE_NS", 0)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x" * (module._CHUNK_BYTES + 5))
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the folders whose bytes were read."""
    folders: list[Path] = []
    real = checkpoint_digest

    def counted(folder: Path, stop: threading.Event | None = None) -> str:
        folders.append(folder)
        return real(folder, stop)

    monkeypatch.setattr(module, "checkpoint_digest", counted)
    return folders


def test_an_unchanged_folder_is_read_once(folder: Path, tmp_path: Path, reads: list[Path]) -> None:
    digests = {remembered_digest(folder, tmp_path / "cache") for _ in range(3)}

    assert digests == {checkpoint_digest(folder)}
    assert reads == [folder]


@pytest.mark.parametrize("change", ["content", "same size and time", "added", "removed", "renamed", "replaced"])
def test_a_file_that_changed_in_any_way_is_read_anew(folder: Path, tmp_path: Path, change: str) -> None:
    weights = folder / "model.safetensors"
    before, stat = remembered_digest(folder, tmp_path / "cache"), weights.stat()
    if change == "content":
        weights.write_bytes(b"y")
    elif change == "same size and time":
        weights.write_bytes(b"y" * stat.st_size)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "added":
        (folder / "generation_config.json").write_text("{}")
    elif change == "removed":
        weights.unlink()
    elif change == "renamed":
        weights.rename(folder / "other.safetensors")
    else:
        other = tmp_path / "other"
        other.write_bytes(b"y" * stat.st_size)
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(weights)

    after = remembered_digest(folder, tmp_path / "cache")

    assert after == checkpoint_digest(folder)
    assert after != before


def test_hidden_files_and_the_manifest_are_no_part_of_it(folder: Path) -> None:
    before = checkpoint_digest(folder)

    (folder / "manifest.json").write_text("{}")
    (folder / ".published").write_text("release 1")

    assert checkpoint_digest(folder) == before


def test_what_has_only_just_changed_is_not_remembered(
    folder: Path, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_AGE_NS", 10**12)

    for _ in range(2):
        remembered_digest(folder, tmp_path / "cache")

    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stamp": 1, "digest": 2}'])
def test_a_memory_that_makes_no_sense_is_not_believed(folder: Path, tmp_path: Path, content: str) -> None:
    remembered_digest(folder, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / ".digests").iterdir()
    memory.write_text(content)

    assert remembered_digest(folder, tmp_path / "cache") == checkpoint_digest(folder)


def test_a_cache_that_cannot_be_written_only_costs_time(folder: Path, tmp_path: Path, reads: list[Path]) -> None:
    (tmp_path / "file").write_text("no folder")

    for _ in range(2):
        assert remembered_digest(folder, tmp_path / "file") == checkpoint_digest(folder)
    assert len(reads) == 2


def test_reading_ends_when_nobody_waits_for_it(folder: Path) -> None:
    stop = threading.Event()
    stop.set()

    began_s = time.monotonic()
    with pytest.raises(DigestStoppedError):
        checkpoint_digest(folder, stop)

    assert time.monotonic() - began_s < 1


def test_it_says_how_much_was_read_of_how_much(folder: Path) -> None:
    said: list[tuple[int, int]] = []

    checkpoint_digest(folder, on_read=lambda done, total: said.append((done, total)))

    whole = sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")
    assert said == sorted(said)
    assert said[-1] == (whole, whole)
