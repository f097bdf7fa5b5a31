"""Where a listing goes on: pure.

A list is read on behind the number of the last id that was looked at, because a job keeps its number while it waits
there, whatever the others do. A registry is read on behind a time and an entry.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

import msgspec

from bitladder.errors import RequestError
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.script_constants import MAX_ID

_VERSION = 1
MAX_CHARS = 24_000
_MAX_MS = 2**53
_Ms = Annotated[int, msgspec.Meta(ge=-_MAX_MS, le=_MAX_MS)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=6, max_length=6)]


class Mark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last entry of registries that was looked at."""

    at_ms: _Ms
    source: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    member: Annotated[bytes, msgspec.Meta(max_length=3 * MAX_ID + 100)] = b""
    is_by_member: bool = False  # those of its second are in the order of their bytes


class ListMark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last id of a list that was looked at, or the number behind its last one where none was."""

    number: _Ms
    digest: Annotated[bytes, msgspec.Meta(max_length=6)] = b""


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a listing goes on."""

    version: int
    selection: bytes  # the filter's digest
    begun_ms: _Ms  # when its first page was read: what came later is not in it
    at_ms: _Ms  # the time of the last job that was shown
    mark: Mark
    lists: Annotated[dict[_Digest, ListMark], msgspec.Meta(max_length=1000)]  # by the digests of the lists' names


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cursor).decode


def digest_of(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=6).digest()


def write_cursor(selection: JobFilter, *, begun_ms: int, at_ms: int, mark: Mark, lists: dict[bytes, ListMark]) -> str:
    cursor = Cursor(_VERSION, selection.digest, begun_ms, at_ms, mark, lists)
    return base64.urlsafe_b64encode(_encode(cursor)).decode().rstrip("=")


def read_cursor(text: str, selection: JobFilter) -> Cursor:
    """Read a cursor.

    Raises:
        RequestError: it is none, or that of another filter.

    """
    try:
        cursor = _decode(base64.b64decode(_padded(text), altchars=b"-_", validate=True))
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError, RecursionError):
        cursor = None
    if cursor is None or cursor.version != _VERSION:
        raise RequestError(f"after must be the next_cursor of an earlier page, got {text[:40]!r}", param="after")
    if cursor.selection != selection.digest:
        raise RequestError("after must be the next_cursor of a page with the same filters", param="after")
    return cursor


def _padded(text: str) -> str:
    if len(text) > MAX_CHARS:
        raise ValueError(len(text))
    return text + "=" * (-len(text) % 4)
