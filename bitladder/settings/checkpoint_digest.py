"""The digest of a checkpoint folder, and a memory of it that makes a second look fast.

`publish` writes it into the release; a worker compares it before it loads the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
# A file that changed so short a time ago may change again within one tick of the file system's clock.
_MIN_AGE_NS = 2 * 10**9


# Called with how many bytes were read, and of how many.
OnRead = Callable[[int, int], None]


def _ignore(done: int, total: int) -> None:
    """Show nothing."""


class DigestStoppedError(Exception):
    """Nobody waits for the digest any more."""


def checkpoint_digest(folder: Path, stop: threading.Event | None = None, on_read: OnRead = _ignore) -> str:
    """Return the digest over names and contents of all files but the manifest, which says when, not what.

    Reads every byte: seconds for small checkpoints, minutes for large ones. `on_read` hears how many of how many.

    Raises:
        DigestStoppedError: `stop` was set meanwhile.

    """
    digest, done, files = hashlib.sha256(), 0, _served_files(folder)
    total = sum(path.stat().st_size for path in files)

    def count(read: int) -> None:
        nonlocal done
        done += read
        on_read(done, total)

    for path in files:
        # Names need not be UTF-8: bytes that are not stay what they are.
        line = f"{path.relative_to(folder)}\0{_file_digest(path, stop, count)}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def remembered_digest(folder: Path, cache: Path, stop: threading.Event | None = None) -> str:
    """Return the same digest; from the memory in `cache` where no file has changed since it was taken.

    Whether one has is told by names, sizes, inodes, and times of the last change of content and of inode. Where the
    cache cannot be written, every call reads every byte.
    """
    folder = folder.resolve()
    memory = cache / ".digests" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
    before, newest_ns = _stamp(folder)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        fields = json.loads(memory.read_bytes())
        if fields["stamp"] == before:
            return str(fields["digest"])
    digest = checkpoint_digest(folder, stop)
    if _stamp(folder)[0] == before and time.time_ns() - newest_ns > _MIN_AGE_NS:
        with contextlib.suppress(OSError):
            _write(memory, json.dumps({"folder": str(folder), "stamp": before, "digest": digest}))
    return digest


def _stamp(folder: Path) -> tuple[str, int]:
    """Return what changes when a file does, and the time of the last change."""
    digest, newest_ns = hashlib.sha256(), 0
    for path in _served_files(folder):
        stat = path.stat()
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(f"{path.relative_to(folder)}\0{facts}\n".encode(errors="surrogateescape"))
        newest_ns = max(newest_ns, stat.st_mtime_ns, stat.st_ctime_ns)
    return digest.hexdigest(), newest_ns


def _served_files(folder: Path) -> list[Path]:
    """Return all files of a checkpoint in the order of their names, without hidden ones and the manifest."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST]
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _file_digest(path: Path, stop: threading.Event | None, count: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        if stop is not None and stop.is_set():
            raise DigestStoppedError
        digest.update(chunk)
        count(len(chunk))
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[memoryview]:
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield view[:count]


def _write(path: Path, text: str) -> None:
    """Write beside and rename: several workers may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
