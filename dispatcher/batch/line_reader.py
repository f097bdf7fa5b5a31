"""The lines of a batch, read from its input file in the order of its index, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitladder.routing.batch_input.line_forms import BatchLine, read_line
from bitladder.routing.batch_input.line_index import ROW_BYTES, Row, read_rows
from dispatcher.batch.object_store import Store

# Rows that lie near each other in the file are read together: up to so many bytes, over gaps of so many.
_MAX_READ, _MAX_GAP = 1024 * 1024, 16 * 1024


class LineReader:
    """The input of one batch: its index is in memory, its lines are not."""

    def __init__(self, store: Store, key: str, index: bytes) -> None:
        self._store, self._key, self._index = store, key, index

    def __len__(self) -> int:
        return len(self._index) // ROW_BYTES

    async def read(self, positions: Sequence[int]) -> list[tuple[int, Row, BatchLine]]:
        """Return the lines at these places of the index.

        Raises:
            StoreError: the store does not answer, or has no such file.

        """
        rows = [(position, self.row(position)) for position in positions]
        lines: dict[int, tuple[int, Row, BatchLine]] = {}
        for near in _near(sorted(rows, key=lambda numbered: numbered[1].offset)):
            start, last = near[0][1].offset, near[-1][1]
            data = await self._store.read(self._key, start, last.offset + last.length - start)
            for position, row in near:
                begin = row.offset - start
                lines[position] = position, row, read_line(data[begin : begin + row.length])
        return [lines[position] for position in positions]

    def row(self, position: int) -> Row:
        """Return where a line is."""
        (row,) = read_rows(self._index[position * ROW_BYTES : (position + 1) * ROW_BYTES])
        return row


def _near(rows: Sequence[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    group: list[tuple[int, Row]] = []
    for numbered in rows:
        row = numbered[1]
        if group:
            first, last = group[0][1], group[-1][1]
            end = last.offset + last.length
            if row.offset - end > _MAX_GAP or row.offset + row.length - first.offset > _MAX_READ:
                yield group
                group = []
        group.append(numbered)
    if group:
        yield group
