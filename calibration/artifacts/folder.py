"""Folders that a command writes: one writer at a time, built aside, put in place by a rename. Knows no model.

A command replaces only what the same command wrote, and no checkpoint that a release names: anything else in its place
is refused before any work.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from calibration.errors import DiskFullError, InputError

# Left free beside the weights: for tokenizer, manifest and other processes.
_SPARE_MB = 100
# EFBIG is a limit on the size of a file: to the writer the disk is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# In a checkpoint that a release names, hidden so that it is no part of its digest: says which release.
PUBLISHED = ".published"
# Any report takes more than this: a disk without even this much is full.
_MIN_REPORT_BYTES = 2**16

_IsOurs = Callable[[Path], bool]


@contextmanager
def claimed(
    final: Path,
    option: str,
    is_ours: _IsOurs,
    on_wait: Callable[[], None],
    is_finished: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold the folder's lock, and clean up after a process that died while it wrote the folder.

    A finished folder is left as it is, even if a user added files to it.

    Raises:
        InputError: the folder cannot be made, or the path holds something that this command did not write.

    """
    if not is_finished():
        require_replaceable(final, option, is_ours)  # before locking, which makes a file beside the folder
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


def require_replaceable(final: Path, option: str, is_ours: _IsOurs) -> None:
    """Raise InputError unless the path is free, an empty folder, or one that this command wrote."""
    reason = _obstacle(final, is_ours)
    if reason:
        raise InputError(
            f"{option} must be a new or empty folder, or one that the same command wrote and nobody added to, got "
            f"{str(final)!r}: {reason}; name another, or move it away"
        )


def require_outside(path: Path, option: str, folder: Path, folder_option: str) -> None:
    """Raise InputError if the path is this folder or file, or lies in it; links are followed."""
    if path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{option} must not be or lie in {folder_option}, got {str(path)!r} and {str(folder)!r}")


def require_other(path: Path | None, option: str, *inputs: Path | None) -> None:
    """Raise InputError if what is to be written, where it is, is one of the files that are read; links are followed."""
    if path is not None and any(file is not None and file.resolve() == path.resolve() for file in inputs):
        raise InputError(f"{option} must not be a file that is read, got {str(path)!r}")


@contextmanager
def locked(cache: Path, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this name; call on_wait once if another process holds it.

    The kernel releases the lock when its process dies, so an old lock file blocks nobody. The file is removed by who
    holds the lock: one who waited for it sees that its file has no name any more, and begins with a new one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / f".{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def staged(final: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty sibling folder to build in; rename it to `final`, or remove it if the build failed.

    A private folder can be read by its owner alone, at every moment. The caller holds the lock: a half-written folder
    that is found here belongs to a process that died.
    """
    partial, retired = _partial(final), _retired(final)
    _recover(final, retired)
    remove(partial)
    partial.mkdir(mode=0o700 if private else 0o777)
    try:
        yield partial
        _sync_files(partial, 0o600 if private else 0o644)
        if final.exists():
            final.rename(retired)
        partial.rename(final)
    finally:
        _recover(final, retired)
        remove(partial)


def set_aside(folder: Path, aside: Path) -> None:
    """Move the folder that `staged` yielded elsewhere instead of publishing it; what is there is replaced."""
    _sync_files(folder, 0o644)
    remove(aside)
    folder.rename(aside)


@contextmanager
def full_disk_named(folder: Path, option: str) -> Iterator[None]:
    """Turn an OSError of a full disk into DiskFullError, which names the disk and the option that chooses another."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFullError(f"the disk of {folder} is full; make room or use {option}") from error
        raise


@contextmanager
def writing(folder: Path, option: str = "--out") -> Iterator[None]:
    """Turn what prevents writing the option's folder into DiskFullError or, for the rest, InputError."""
    try:
        with full_disk_named(folder, option):
            yield
    except OSError as error:
        raise InputError(f"{option}: cannot write to {str(folder)!r}: {error.strerror or error}") from error


def try_writing(folder: Path, *, private: bool = False) -> None:
    """Make the folder of --out and write to its disk once, before hours of work; raise as `writing` does.

    A private folder is made for its owner alone; one that is there keeps its mode.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_MIN_REPORT_BYTES))
            file.flush()


def is_full(error: OSError) -> bool:
    """Tell whether the disk was full."""
    return error.errno in _FULL


def replace_file(
    path: Path,
    content: bytes,
    *,
    aside: str = "partial",
    mode: int = 0o666,
    check: Callable[[Path], None] = lambda path: None,
) -> None:
    """Write a temporary file beside the path, sync it, check it, and rename it to the path.

    Processes that may write the same path at the same time need different values of `aside`.
    """
    partial = path.with_name(f".{path.name}.{aside}")
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & mode)  # one of a process that died
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_output(path: Path, content: bytes, option: str, *, mode: int = 0o666) -> None:
    """Write the file that an option names, and its folder; by a rename: no reader sees half a file.

    Raises:
        InputError: it cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, mode=mode)
    except OSError as error:
        raise InputError(f"cannot write {option} {str(path)!r}: {error.strerror or error}") from error


def remove(folder: Path) -> None:
    """Remove a folder if it exists; of a link to a folder, remove the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def require_disk_space(cache: Path, needed_mb: int, option: str) -> None:
    """Raise DiskFullError unless a checkpoint of this size fits."""
    free_mb = shutil.disk_usage(cache).free // 10**6
    if free_mb < needed_mb + _SPARE_MB:
        raise DiskFullError(
            f"{needed_mb + _SPARE_MB} MB are needed in {cache}, {free_mb} MB are free; make room or use {option}"
        )


def _obstacle(final: Path, is_ours: _IsOurs) -> str:
    """Return why a path cannot be replaced; '' where it can."""
    try:
        if not final.exists():
            return "it is a link to nothing" if final.is_symlink() else ""
        if not final.is_dir():
            return "it is a file"
        if final.is_mount():  # `/` as well
            return "a file system is mounted there"
        if is_ours(final) or not any(final.iterdir()):
            return ""
        mark = final / PUBLISHED
        return f"it is published ({mark.read_text().strip():.300})" if mark.is_file() else "it holds something else"
    except OSError as error:
        return error.strerror or str(error)


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def _retired(final: Path) -> Path:
    """Return where the old folder waits while the new one takes its name."""
    return final.with_name(f".{final.name}.retired")


def _recover(final: Path, retired: Path) -> None:
    """Put the old folder back if the new one never took its place; else remove the old one."""
    if retired.exists() and not final.exists():
        retired.rename(final)
    remove(retired)


def _sync_files(folder: Path, mode: int) -> None:
    """Set the mode of every file and sync it, before the rename: some libraries write 0600, some 0644."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())
