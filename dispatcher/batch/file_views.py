"""Files as the routes show them, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from bitladder.queue.calls.kept_files import FileRecord
from bitladder.queue.json_views.kinds import Count

_Seconds = Annotated[int, Meta(description="Seconds since 1970.")]


class File(Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: Count
    created_at: _Seconds
    expires_at: _Seconds | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(Struct, frozen=True, kw_only=True):
    """Some of a tenant's files; `after=<last_id>` lists those behind them."""

    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(Struct, frozen=True, kw_only=True):
    """A file that is no longer there."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileUpload(Struct, frozen=True, kw_only=True):
    """A form with a file."""

    file: Annotated[bytes, Meta(extra_json_schema={"type": "string", "format": "binary"})]
    purpose: Literal["batch"]
    expires_after_anchor: Literal["created_at"] | UnsetType = field(default=UNSET, name="expires_after[anchor]")
    expires_after_seconds: Annotated[int, Meta(ge=3600, le=2_592_000)] | UnsetType = field(
        default=UNSET, name="expires_after[seconds]"
    )


def describe_file(record: FileRecord) -> File:
    """Return a file as the routes show it."""
    return File(
        id=record.id,
        bytes=record.bytes,
        created_at=record.created_at,
        expires_at=record.expires_at,
        filename=record.filename,
        purpose="batch" if record.purpose == "batch" else "batch_output",
    )


def describe_files(records: list[FileRecord], *, has_more: bool) -> FileList:
    """Return a page of files as the routes show it."""
    return FileList(
        data=[describe_file(record) for record in records],
        first_id=records[0].id if records else None,
        last_id=records[-1].id if records else None,
        has_more=has_more,
    )
