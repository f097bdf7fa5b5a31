"""Checkpoint folders on disk: one maker at a time, built aside, published by a rename. Knows no model."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from calibration.errors import DiskFullError

# Left free beside the checkpoint itself: tokenizer, manifest, and room for others to breathe.
SPARE_MB = 100


@contextmanager
def locked(cache: Path, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Be the only maker of this checkpoint; call on_wait once if another one has to finish first.

    The kernel drops the lock when a maker dies, so a lock file that lies around means nothing.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def staged(cache: Path, name: str) -> Iterator[Path]:
    """Yield an empty sibling folder to build in; publish it as `name`, or remove it if the build failed.

    Only the holder of the lock may call this: whatever half-written folder it finds belongs to a dead maker.
    """
    partial, retired, final = cache / f".{name}.partial", cache / f".{name}.retired", cache / name
    remove(partial)
    remove(retired)
    partial.mkdir()
    try:
        yield partial
        _settle(partial)
        if final.exists():
            final.rename(retired)
        partial.rename(final)
    finally:
        remove(partial)
        remove(retired)


@contextmanager
def full_disk_named(folder: Path, option: str) -> Iterator[None]:
    """Say which disk is full, and which option chooses another one."""
    try:
        yield
    except OSError as error:
        # The last one is a limit on the size of a file: whatever it is, there is no room for more.
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(f"the disk of {folder} is full; make room or use {option}") from error
        raise


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def require_room(cache: Path, needed_mb: int) -> None:
    """Raise DiskFullError unless a checkpoint of this size fits."""
    free_mb = shutil.disk_usage(cache).free // 10**6
    if free_mb < needed_mb + SPARE_MB:
        raise DiskFullError(
            f"{needed_mb + SPARE_MB} MB are needed in {cache}, {free_mb} MB are free; make room or use --cache"
        )


def _settle(folder: Path) -> None:
    """Put every file on disk before the rename, readable by whoever may enter the folder (some arrive as 0600)."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
