"""Cut bytes that arrive in parts into lines, with little memory however long a line is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class RawLine(NamedTuple):
    """One line that is not blank."""

    number: int  # from 1, blank lines counted
    offset: int  # of its first byte in the file
    length: int
    data: bytes | None  # without its end; None: it is longer than the splitter's maximum


class LineSplitter:
    """The lines of one file. Lines end with LF or CRLF, the last one may lack its end, and a BOM is skipped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun = bytearray()  # of a line whose end has not come, up to the maximum
        self._begun_bytes = 0  # all of it
        self._number = self._offset = 0

    def feed(self, data: bytes) -> Iterator[RawLine]:
        """Yield the lines that end in these bytes."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            yield from self._line(part)
        self._keep(rest)

    def end(self) -> Iterator[RawLine]:
        """Yield the last line, where it has no end."""
        if self._begun_bytes:
            yield from self._line(b"")

    def _keep(self, part: bytes) -> None:
        self._begun_bytes += len(part)
        if self._begun_bytes <= self._max_bytes + 1:  # its CR does not count
            self._begun += part
        else:
            self._begun.clear()

    def _line(self, part: bytes) -> Iterator[RawLine]:
        if self._begun_bytes:
            self._keep(part)
            length, data = self._begun_bytes, bytes(self._begun)
            self._begun.clear()
            self._begun_bytes = 0
        else:
            length, data = len(part), part
        self._number += 1
        offset, self._offset = self._offset, self._offset + length + 1
        if length > len(data):  # what was too long was not kept
            yield RawLine(self._number, offset, length, None)
            return
        if offset == 0 and data.startswith(_BOM):
            data, offset = data[len(_BOM) :], len(_BOM)
        data = data.removesuffix(b"\r")
        if data and not data.isspace():
            yield RawLine(self._number, offset, len(data), data if len(data) <= self._max_bytes else None)
