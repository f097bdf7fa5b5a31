"""From the bytes of a file or an object to text: gzip, UTF-8, UTF-16 and UTF-32, chunk by chunk, as far as it goes."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = 2**18
_HEAD = 16  # bytes that tell what it is
_GZIP = b"\x1f\x8b"
# Bytes that are inflated at once, and the most that they become: what is fed again where they become more is copied.
_READ, _FED, _STEP = 2**16, 2**12, 2**16
# First bytes of what is no text, so that it is named; S3 buckets hold all of these.
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"\xff\x06\x00\x00sNaPpY": "Snappy",
    b"\x04\x22\x4d\x18": "LZ4",
    _GZIP: "gzip in gzip",
}
# The longer marks first: the one of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class DecodedText:
    """The text of a stream. What is no UTF-8 in it becomes halves of surrogate pairs, and is judged later."""

    def __init__(self, stream: BinaryIO) -> None:
        self.foreign = ""  # what it is instead of text
        self.fault = ""  # why it ended before its end; known once it has ended
        self.lost = 0  # bytes behind that
        self.start = 0  # bytes before the first character
        self.encoding = "utf-8"
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        chunks = self._bytes()
        head = _head(chunks)
        self.foreign = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), "")
        if self.foreign:
            self.lost += len(head) + sum(map(len, chunks))
            return
        self.start, self.encoding = _encoding_of(head)
        decoder = codecs.getincrementaldecoder(self.encoding)(
            "surrogateescape" if self.encoding == "utf-8" else "replace"
        )
        yield decoder.decode(head[self.start :])
        for chunk in chunks:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)

    @property
    def is_utf8(self) -> bool:
        return self.encoding == "utf-8"

    def size(self, part: str) -> int:
        """Return how many bytes a part of the text took."""
        if self.is_utf8:
            return len(part) if part.isascii() else len(part.encode("utf-8", "surrogateescape"))
        return len(part.encode(self.encoding, "surrogatepass"))

    def _bytes(self) -> Iterator[bytes]:
        chunks = iter(lambda: self._stream.read(CHUNK), b"")
        head = _head(chunks)
        if head.startswith(_GZIP):
            yield from _gathered(self._inflated(head))
            return
        yield head
        yield from chunks

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        """Yield what the members of a gzip hold, until it breaks or is cut off."""
        taken = inflated = 0
        member = zlib.decompressobj(wbits=31)
        while data or (data := self._stream.read(_READ)) or not member.eof:
            if member.eof:
                data = data.lstrip(b"\0")  # some writers fill up to a whole block
                member = zlib.decompressobj(wbits=31) if data else member
                continue
            fed, before = data[:_FED], member.copy()
            try:
                part = member.decompress(fed, _STEP)
            except zlib.error:
                part, left = _salvaged(before, fed)
                taken, inflated = taken + len(fed) - left, inflated + len(part)
                self.fault, self.lost = "gzip is damaged", self._left(left + len(data) - len(fed), taken, inflated)
                yield part
                return
            used = len(fed) - len(member.unused_data or member.unconsumed_tail)
            taken, inflated, data = taken + used, inflated + len(part), data[used:]
            if not fed and not part and not member.eof:
                self.fault, self.lost = "gzip is cut off", 0 if inflated else taken
                return
            yield part

    def _left(self, left: int, taken: int, inflated: int) -> int:
        """Return how many bytes there would be behind the damage, if they were compressed as those before it."""
        while data := self._stream.read(_READ):
            left += len(data)
        return left * max(1, inflated // max(1, taken))


def _head(chunks: Iterator[bytes]) -> bytes:
    """Return the first chunks: a stream may give few bytes at a time."""
    head = b""
    while len(head) < _HEAD and (chunk := next(chunks, b"")):
        head += chunk
    return head


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    made = bytearray()
    for part in parts:
        made += part
        if len(made) >= CHUNK:
            yield bytes(made)
            made.clear()
    yield bytes(made)


def _salvaged(member: zlib._Decompress, fed: bytes) -> tuple[bytes, int]:
    """Return what stands before the damage, and how many of the bytes stand behind it."""
    made = bytearray()
    left = fed
    try:
        while left:
            made += member.decompress(left, 1)
            left = member.unconsumed_tail
    except zlib.error:
        pass
    return bytes(made), len(left)


def _encoding_of(head: bytes) -> tuple[int, str]:
    """Return the length of the mark and the encoding; without a mark, where the first character has its zeros."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return len(mark), name
    zeros = [byte == 0 for byte in head[:4]]
    by_zeros = {
        (True, True, True, False): "utf-32-be",
        (False, True, True, True): "utf-32-le",
        (True, False): "utf-16-be",
        (False, True): "utf-16-le",
    }
    return 0, by_zeros.get(tuple(zeros)) or by_zeros.get(tuple(zeros[:2])) or "utf-8"
