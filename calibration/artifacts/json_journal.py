"""Lines of JSON that one process at a time adds to a file: what it has added outlasts a crash. Knows no record."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from calibration.artifacts.folder import writing
from calibration.errors import InputError

T = TypeVar("T")


@contextmanager
def held(path: Path, refusal: InputError) -> Iterator[IO[bytes]]:
    """Open a journal, which only its owner can read, or begin one; raise `refusal` where another process holds it."""
    with writing(path.parent):
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refusal from error
        yield file


def without_torn_line(file: IO[bytes]) -> tuple[bytes, int]:
    """Return what is in a journal, and how many bytes of a last line were cut off in it: those are taken away."""
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
    return content[:whole], len(content) - whole


def add_lines(folder: Path, file: IO[bytes], records: Iterable[msgspec.Struct]) -> None:
    """Write records; once this returns they are on disk."""
    with writing(folder):
        file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path, content: bytes, decode: Callable[[bytes], T], what: str) -> Iterator[T]:
    """Yield the record of each whole line; raise InputError where one is none."""
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            yield decode(line)
        except msgspec.MsgspecError as error:
            raise InputError(f"{path}:{number}: {what} ({error})") from error
