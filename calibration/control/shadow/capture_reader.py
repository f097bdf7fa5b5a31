"""Reads on in a folder of captured prompts, line by line, behind what was read before.

Intakes write on while this reads, and remove files that are too old. A line without its end is being written; in a file
that nobody has written to for an hour, it never gets one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

# A writer begins a new file each hour.
_WRITTEN_S = 3600.0 + 60
# No line of a capture is so long.
_MAX_BYTES = 2**20


class Mark(msgspec.Struct):
    """How far one file was read, in bytes, of how many."""

    end: int = 0
    size: int = 0


class Line(msgspec.Struct, frozen=True):
    """One line, and where it stands; its mark is behind it once the next one is asked for."""

    file: str
    start: int
    content: bytes


def read_on(folder: Path, marks: dict[str, Mark]) -> Iterator[Line]:
    """Yield the lines behind the marks, and move the marks: files in order of their names, which begin with a time."""
    for path in sorted(folder.glob("*.jsonl")):
        mark = marks.setdefault(path.name, Mark())
        try:
            status = path.stat()
            mark.size = status.st_size
            if mark.end < mark.size:
                yield from _lines(path, mark, is_written=time.time() < status.st_mtime + _WRITTEN_S)
        except OSError:  # its time was up since it was listed
            continue


def forget_removed(folder: Path, marks: dict[str, Mark]) -> int:
    """Drop the marks of files that are gone; return how many of these had not been read to their end."""
    gone = [name for name in marks if not (folder / name).exists()]
    return sum(mark.end < mark.size for mark in map(marks.pop, gone))


def line_at(folder: Path, file: str, start: int) -> bytes:
    """Return one line again; b'' where it is gone."""
    try:
        with (folder / file).open("rb") as stream:
            stream.seek(start)
            return stream.readline(_MAX_BYTES)
    except OSError:
        return b""


def _lines(path: Path, mark: Mark, *, is_written: bool) -> Iterator[Line]:
    with path.open("rb") as stream:
        stream.seek(mark.end)
        while content := stream.readline(_MAX_BYTES):
            if not content.endswith(b"\n") and len(content) < _MAX_BYTES and is_written:
                return
            if content.strip():
                yield Line(path.name, mark.end, content)
            mark.end += len(content)
