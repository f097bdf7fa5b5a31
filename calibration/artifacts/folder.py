"""Folders that a command writes: one writer at a time, built aside, published by a rename. Knows no model.

What it replaces was written by the same command before: anything else in its place is refused, before any work.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from calibration.errors import DiskFullError, InputError

# Left free beside the checkpoint itself: tokenizer, manifest, and room for others to breathe.
SPARE_MB = 100
# The last one is a limit on the size of a file: whatever it is, there is no room for more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

IsOurs = Callable[[Path], bool]


@contextmanager
def claimed(
    final: Path,
    option: str,
    is_ours: IsOurs,
    on_wait: Callable[[], None],
    is_finished: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Be the only one who writes this folder, drop what a dead one left beside it, and lose nothing of anybody else's.

    What is finished stays as it is, whatever else is in the folder.

    Raises:
        InputError: it cannot be made, or something else is there.

    """
    if not is_finished():
        require_replaceable(final, option, is_ours)  # before the lock, whose file would be left beside it
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(final.parent, final.name, on_wait))
        except OSError as error:
            if is_full(error):
                raise
            raise InputError(
                f"{option} must be a folder that can be made, got {str(final)!r}: {error.strerror}"
            ) from error
        _recover(final, _retired(final))
        remove(_partial(final))
        if not is_finished():
            require_replaceable(final, option, is_ours)
        yield


def require_replaceable(final: Path, option: str, is_ours: IsOurs) -> None:
    """Raise InputError unless nothing is there, or an empty folder, or what is ours."""
    reason = _in_the_way(final, is_ours)
    if reason:
        raise InputError(
            f"{option} must be a new or empty folder, or one that the same command wrote and nobody added to, got "
            f"{str(final)!r}: {reason}; name another, or move it away"
        )


def require_outside(path: Path, option: str, folder: Path, its_option: str) -> None:
    """Raise InputError if the path is this folder or file, or lies in it, however both are spelled."""
    if path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{option} must not be or lie in {its_option}, got {str(path)!r} and {str(folder)!r}")


@contextmanager
def locked(cache: Path, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Be the only one who writes this name; call on_wait once if another one has to finish first.

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
def staged(final: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty sibling folder to build in; publish it as `final`, or remove it if the build failed.

    A private one can be read by its owner alone, at every moment. Only the holder of the lock may call this: whatever
    half-written folder it finds belongs to a dead maker.
    """
    partial, retired = _partial(final), _retired(final)
    _recover(final, retired)
    remove(partial)
    partial.mkdir(mode=0o700 if private else 0o777)
    try:
        yield partial
        _settle(partial, 0o600 if private else 0o644)
        if final.exists():
            final.rename(retired)
        partial.rename(final)
    finally:
        _recover(final, retired)
        remove(partial)


@contextmanager
def full_disk_named(folder: Path, option: str) -> Iterator[None]:
    """Say which disk is full, and which option chooses another one."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFullError(f"the disk of {folder} is full; make room or use {option}") from error
        raise


def is_full(error: OSError) -> bool:
    """Tell whether there was no room."""
    return error.errno in _FULL


def replace_file(
    path: Path,
    content: bytes,
    *,
    aside: str = "partial",
    mode: int = 0o666,
    check: Callable[[Path], None] = lambda path: None,
) -> None:
    """Write a file under a name aside, whole and on disk, check it there, and give it its own name.

    Those who may write the same file at the same time need different names aside.
    """
    partial = path.with_name(f".{path.name}.{aside}")
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder if it is there; of a link to one, the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def require_room(cache: Path, needed_mb: int, option: str) -> None:
    """Raise DiskFullError unless a checkpoint of this size fits."""
    free_mb = shutil.disk_usage(cache).free // 10**6
    if free_mb < needed_mb + SPARE_MB:
        raise DiskFullError(
            f"{needed_mb + SPARE_MB} MB are needed in {cache}, {free_mb} MB are free; make room or use {option}"
        )


def _in_the_way(final: Path, is_ours: IsOurs) -> str:
    """Say what makes a path no place for a folder of ours; '' where nothing does."""
    try:
        if not final.exists():
            return "it is a link to nothing" if final.is_symlink() else ""
        if not final.is_dir():
            return "it is a file"
        if final.is_mount():  # `/` as well
            return "a file system is mounted there"
        return "" if is_ours(final) or not any(final.iterdir()) else "it holds something else"
    except OSError as error:
        return error.strerror or str(error)


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def _retired(final: Path) -> Path:
    """Return where the old folder waits while the new one takes its name."""
    return final.with_name(f".{final.name}.retired")


def _recover(final: Path, retired: Path) -> None:
    """Drop what was replaced; where the new folder never came into its place, put the old one back instead."""
    if retired.exists() and not final.exists():
        retired.rename(final)
    remove(retired)


def _settle(folder: Path, mode: int) -> None:
    """Put every file on disk before the rename, with its mode: some arrive as 0600, some as 0644."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())
