"""Where each line of a batch lies in its file, in the order in which they should run."""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

_ROW = np.dtype([("offset", "<u8"), ("length", "<u4"), ("line", "<u4")])
ROW_BYTES = _ROW.itemsize


class Row(NamedTuple):
    """One line."""

    offset: int
    length: int
    line: int  # its number, from 1


class IndexBuilder:
    """The rows of an index, as their file is read: 24 bytes for each line."""

    def __init__(self) -> None:
        self._offsets, self._lengths, self._lines, self._prefixes = array("Q"), array("L"), array("L"), array("Q")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, row: Row, prefix: int) -> None:
        self._offsets.append(row.offset)
        self._lengths.append(row.length)
        self._lines.append(row.line)
        self._prefixes.append(prefix)

    def encode(self) -> bytes:
        """Return the index, ROW_BYTES for each line: those that begin alike run together, else as the file has them.

        The engine's cache then has the beginning from the line before.
        """
        rows = np.empty(len(self), _ROW)
        rows["offset"], rows["length"], rows["line"] = self._offsets, self._lengths, self._lines
        _, first, group = np.unique(np.array(self._prefixes, np.uint64), return_index=True, return_inverse=True)
        return rows[np.argsort(first[group], kind="stable")].tobytes()


def read_rows(data: bytes) -> list[Row]:
    """Read rows of an index: any number of whole ones."""
    rows = np.frombuffer(data, _ROW)
    return [Row(int(row["offset"]), int(row["length"]), int(row["line"])) for row in rows]
