"""What a store of objects can do: keep bytes under a key. An object is there whole, or it is not there.

A key is made of ids, with slashes between them. Its second part names what the object belongs to, by the id of its
record in Redis: `<store>/file-…`, or `<store>/batch_…/index` (see orphans.py).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple, Protocol

from bitladder.errors import BitladderError, NotFoundError
from bitladder.queue.calls.kept_files import KEY_PATTERN

_KEY = re.compile(KEY_PATTERN)


class ObjectMissingError(NotFoundError):
    """There is no object under this key."""


class StoreError(BitladderError):
    """The store cannot be read or written: its disk is full, its server is down, or rights are missing."""

    status = 503
    code = "store_unavailable"
    public = "the store of files does not answer, or refuses to store anything"
    retry_after_s = 5.0


class StoredObject(NamedTuple):
    """An object, as a list of them has it."""

    key: str
    written_s: float  # when, since 1970


class Store(Protocol):
    """Objects by key. All calls may raise StoreError."""

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object, in the place of one that is there; return its size.

        It is there once this returns, and survives a crash of the machine. If anything fails before, whatever `parts`
        raises too, nothing has changed.
        """

    async def read(self, key: str, start: int, length: int) -> bytes:
        """Return bytes of an object, less than `length` at its end.

        Raises:
            ObjectMissingError: there is no such object.

        """

    def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield an object's bytes from `start` to its end, in parts of some 256 KiB.

        Raises:
            ObjectMissingError: there is no such object.

        """

    async def size(self, key: str) -> int:
        """Return an object's size.

        Raises:
            ObjectMissingError: there is no such object.

        """

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""

    def objects(self, start: str) -> AsyncIterator[StoredObject]:
        """Yield the objects whose keys begin with `start` and a slash."""

    async def aclose(self) -> None:
        """Wait for what is being written, and close."""


def checked(key: str) -> str:
    """Return the key.

    Raises:
        ValueError: it is no key: it could leave the folder.

    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"a key is made of ids with slashes between them, got {key[:80]!r}")
    return key
