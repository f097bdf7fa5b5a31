"""Where --out points: said in one line if nothing can be written there, and before hours are spent where possible."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calibration.artifacts.folder import full_disk_named
from calibration.errors import InputError

# What any report takes at least: a disk that has not even that is full.
_MIN_BYTES = 2**16


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what prevents writing there into an error of ours: DiskFullError, or InputError for all else."""
    try:
        with full_disk_named(folder, "--out"):
            yield
    except OSError as error:
        raise InputError(f"--out: cannot write to {str(folder)!r}: {error.strerror or error}") from error


def try_writing(folder: Path) -> None:
    """Make the folder and write to its disk, or raise what `writing` raises."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_MIN_BYTES))
            file.flush()
