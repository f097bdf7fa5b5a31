"""The records of files that clients upload and batches write: add_file.lua, drop_file.lua."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from bitladder.queue.run_script import Argument, Call

# Tenant -> bytes of its files; id -> when it expires.
SUMS, ENDS = "bl:file_sums", "bl:file_ends"
# The name that the objects of this Redis have in the store: two that share a store do not delete each other's.
STORE_NAME = "bl:store"
# What a key in the store is: ids with slashes between them, and no way out of a folder.
KEY_PATTERN = r"[a-z0-9][a-z0-9_-]{0,127}(/[a-z0-9][a-z0-9_-]{0,127}){0,3}"


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What Redis knows of a file."""

    id: str
    tenant: str
    key: Annotated[str, Meta(pattern=rf"\A{KEY_PATTERN}\Z")]  # of its content in the store
    bytes: Annotated[int, Meta(ge=0, le=2**53)]
    created_at: int  # in seconds since 1970, as when it expires; None: never
    filename: str
    purpose: str
    expires_at: int | None = None
    fingerprint: str = ""  # of an upload with an idempotency key: its repeats have the same


class Added(NamedTuple):
    """Whether a record is there now, and what its tenant has."""

    is_there: bool
    files: int
    bytes: int


_decode = msgspec.json.Decoder(FileRecord).decode


def file_key(file_id: str) -> str:
    """Return the key of a file's record."""
    return f"bl:file:{file_id}"


def index_key(tenant: str) -> str:
    """Return the key of the ids of a tenant's files."""
    return f"bl:files:{tenant}"


def add_file_call(record: FileRecord, max_files: int, max_bytes: int) -> Call:
    """Build the call of add_file.lua; 0: no maximum."""
    expires = "" if record.expires_at is None else record.expires_at
    args: list[Argument] = [
        record.id,
        record.tenant,
        msgspec.json.encode(record),
        record.bytes,
        expires,
        max_files,
        max_bytes,
    ]
    return Call("add_file", _keys(record), args)


def read_added(answer: list[int]) -> Added:
    """Read the answer of add_file.lua."""
    is_there, files, size = answer
    return Added(bool(is_there), int(files), int(size))


def drop_file_call(record: FileRecord) -> Call:
    """Build the call of drop_file.lua."""
    return Call("drop_file", _keys(record), [record.id, record.tenant])


def read_file(raw: bytes | None) -> FileRecord | None:
    """Read a record; None: there is none, or another program wrote it."""
    try:
        return _decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _keys(record: FileRecord) -> list[str]:
    return [file_key(record.id), index_key(record.tenant), SUMS, ENDS]
