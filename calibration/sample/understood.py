"""How much of what was read was understood, in bytes: a file of another kind must not pass for a few bad lines."""

from __future__ import annotations

import msgspec

from calibration.errors import SourceError
from calibration.terminal.escape import printable

EXPECTED = 'JSON objects with "prompt", "messages" or "text", one after another or in a list'
# A torn object among thousands is skipped; files that were lost must be this small a share of all that was read.
_MAX_LOST = 0.01
# So many such files are named.
_NAMED = 20


class _Spot(msgspec.Struct, frozen=True):
    """The first place of a file that was not understood."""

    offset: int  # in bytes; of what is in a gzip
    what: str = msgspec.field(name="found")  # as it is stored


class Extent(msgspec.Struct):
    """The bytes of one file: of values that are objects or lists, and of all that is none."""

    understood: int = 0
    lost: int = 0
    first: _Spot | None = None

    def lose(self, size: int, offset: int, what: str) -> None:
        self.lost += size
        if self.first is None:
            self.first = _Spot(offset, what)


class _LostFile(msgspec.Struct, frozen=True):
    """A file of which most was not understood."""

    name: str
    understood: int
    lost: int
    first: _Spot

    def __str__(self) -> str:
        return (
            f"{printable(self.name)}: {self.lost:,} of {self.understood + self.lost:,} bytes were not understood, "
            f"the first at byte {self.first.offset:,}: found {printable(self.first.what)}"
        )


class Understood(msgspec.Struct):
    """The bytes of all files so far."""

    understood: int = 0
    lost: int = 0
    lost_in_files: int = 0  # of which most was lost
    count: int = 0  # such files
    files: list[_LostFile] = []

    def add(self, name: str, extent: Extent) -> None:
        self.understood += extent.understood
        self.lost += extent.lost
        if extent.lost <= extent.understood or extent.first is None:
            return
        self.count += 1
        self.lost_in_files += extent.lost
        if len(self.files) < _NAMED:
            self.files.append(_LostFile(name, extent.understood, extent.lost, extent.first))

    def require(self) -> None:
        """Raise SourceError if files were lost that matter, with the first one and what was found there."""
        if self.lost_in_files > _MAX_LOST * (self.understood + self.lost):
            more = f"; {self.count - 1:,} more files are like it" if self.count > 1 else ""
            raise SourceError(f"{self.files[0]}, expected {EXPECTED}{more}")
