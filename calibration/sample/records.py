"""From the bytes of a file or an object to JSON values: gzip, JSON or JSONL, never more than a bound in memory."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import msgspec

from calibration.sample.prompt import Bad

# A whole JSON file must fit, and a line of JSONL: far above any prompt that an intake accepts.
MOST_BYTES = 16 * 2**20
# Lines of something larger that tell whether it is JSONL.
_LOOKED_AT = 8
_GZIP = b"\x1f\x8b"


def read_values(name: str, stream: BinaryIO) -> Iterator[bytes | Bad]:
    """Yield every JSON value: the lines of .jsonl and .ndjson, else the whole, else its lines if they are JSONL."""
    try:
        opened = _without_mark(_decompressed(stream))
        if name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
            yield from _lines(opened)
            return
        whole = opened.read(MOST_BYTES + 1)
        if len(whole) > MOST_BYTES:
            yield from _lines(_joined(whole, opened)) if _begins_as_jsonl(whole) else [Bad("too large")]
        elif not _is_jsonl(whole):
            yield whole
        else:
            yield from _lines(io.BytesIO(whole))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield Bad("broken gzip")


def _decompressed(stream: BinaryIO) -> BinaryIO:
    start = stream.read(2)
    joined = _joined(start, stream)
    return cast(BinaryIO, gzip.GzipFile(fileobj=joined)) if start == _GZIP else joined


def _without_mark(stream: BinaryIO) -> BinaryIO:
    """Skip the mark that some editors put before UTF-8."""
    start = stream.read(len(codecs.BOM_UTF8))
    return _joined(b"" if start == codecs.BOM_UTF8 else start, stream)


def _joined(start: bytes, rest: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Joined(start, rest), 2**16))


def _lines(stream: BinaryIO) -> Iterator[bytes | Bad]:
    while line := stream.readline(MOST_BYTES + 1):
        if len(line) > MOST_BYTES:
            yield Bad("too large")
            while line and not line.endswith(b"\n"):
                line = stream.readline(MOST_BYTES)
        elif line.strip():
            yield line


def _is_jsonl(whole: bytes) -> bool:
    """Tell lines from one value on many lines: of the former one is an object, and the whole is no JSON."""
    lines = whole.strip().split(b"\n")
    return len(lines) > 1 and any(map(_is_object, lines)) and not _is_json(whole)


def _begins_as_jsonl(part: bytes) -> bool:
    """Tell lines from one value by those at the beginning: a torn one may come first, and none need end here."""
    return any(map(_is_object, part.split(b"\n", _LOOKED_AT)[:_LOOKED_AT]))


def _is_object(line: bytes) -> bool:
    line = line.strip()
    return line.startswith(b"{") and line.endswith(b"}") and _is_json(line)


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


class _Joined(io.RawIOBase):
    """The first bytes, which were read to look at them, and the rest of the stream."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._start or self._rest.read(len(view))
        self._start = data[len(view) :] if self._start else b""
        view[: len(data)] = data
        return len(data)
