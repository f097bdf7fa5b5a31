"""Files of one intake: their records in Redis and their contents in the store, made and forgotten together.

A content is written first and its record second; a record is dropped first and its content second. So a file that is
listed can be read, and a crash between the two leaves a content without a record: orphans.py finds it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, NamedTuple, TypeVar

import uuid_utils
from redis.exceptions import RedisError

from bitladder.errors import NotFoundError, RequestError
from bitladder.queue.calls.kept_files import (
    STORE_NAME,
    SUMS,
    FileRecord,
    add_file_call,
    drop_file_call,
    file_key,
    index_key,
    read_added,
    read_file,
)
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.protocol import unreachable
from bitladder.settings.intake_section import FilesSettings
from dispatcher.batch.object_store import Store

MB = 2**20
# Records read at once.
_PAGE = 500

T = TypeVar("T")


class FileQuotaError(RequestError):
    """The tenant has as many files, or as large ones, as it may. Deleting some helps, and repeating does not."""

    code = "file_quota_exceeded"


class FilePage(NamedTuple):
    """Some of a tenant's files, and whether there are more."""

    files: list[FileRecord]
    has_more: bool


class Files:
    """The files of all tenants."""

    def __init__(self, queue: JobQueue, store: Store) -> None:
        self.queue = queue
        self.store = store

    @property
    def settings(self) -> FilesSettings:
        return self.queue.settings.files

    async def key_of(self, owner: str, name: str = "") -> str:
        """Return the key in the store of what belongs to a file or a batch, by its id.

        It begins with a name that this Redis has given itself: another one at the same store has other objects.
        """
        if not (store_name := await self.store_name()):
            await answer_of(self.queue.client.set(STORE_NAME, secrets.token_hex(8), nx=True))
            store_name = await self.store_name()
        return f"{store_name}/{owner}/{name}" if name else f"{store_name}/{owner}"

    async def store_name(self) -> str:
        """Return what the keys of all objects of this Redis begin with; '' where there are none yet."""
        return bytes(await answer_of(self.queue.client.get(STORE_NAME)) or b"").decode()

    async def create(
        self,
        tenant: str,
        parts: AsyncIterator[bytes],
        *,
        purpose: str,
        filename: str,
        expires_at: int | None = None,
        file_id: str = "",
    ) -> FileRecord:
        """Store a file that a batch writes, without a limit; with the same `file_id` a repeat makes it once.

        Raises:
            StoreError: the store cannot be written.
            QueueUnreachableError: Redis is unreachable; the file may be there nevertheless.

        """
        file_id = file_id or new_file_id()
        key = await self.key_of(file_id)
        size = await self.store.write(key, parts)
        record = FileRecord(
            id=file_id,
            tenant=tenant,
            key=key,
            bytes=size,
            created_at=int(time.time()),
            filename=filename,
            purpose=purpose,
            expires_at=expires_at,
        )
        await self.queue.run(add_file_call(record, 0, 0))
        await self.queue.make_safe()
        return record

    async def register(self, record: FileRecord) -> None:
        """Store the record of an upload whose content is in the store.

        Raises:
            FileQuotaError: the tenant has as many files as it may; the content is deleted.

        """
        limits = self.settings
        added = read_added(await self.queue.run(add_file_call(record, limits.max_files, limits.max_total_mb * MB)))
        if not added.is_there:
            await self.store.delete(record.key)
            raise self._quota_error(added.files, added.bytes)
        await self.queue.make_safe()

    async def check_room(self, tenant: str, size: int) -> None:
        """Refuse an upload before it arrives, where its tenant has no room for it.

        Raises:
            FileQuotaError: it has not.

        """
        client = self.queue.client
        files = int(await answer_of(client.zcard(index_key(tenant))))
        used = int(await answer_of(client.hget(SUMS, tenant)) or 0)
        if files >= self.settings.max_files or used + size > self.settings.max_total_mb * MB:
            raise self._quota_error(files, used)

    async def get(self, tenant: str, file_id: str) -> FileRecord:
        """Return a file of this tenant.

        Raises:
            NotFoundError: there is none; one of another tenant, or one that has expired, counts as none.

        """
        record = read_file(await answer_of(self.queue.client.get(file_key(file_id))))
        if record is None or record.id != file_id or record.tenant != tenant or _has_expired(record):
            raise NotFoundError(f"there is no file {file_id[:80]!r}", param="file_id")
        return record

    async def page(
        self, tenant: str, *, after: str = "", limit: int, is_descending: bool = True, purpose: str = ""
    ) -> FilePage:
        """Return files of a tenant, by the time at which they were made; `after`: those behind this one."""
        listed: list[FileRecord] = []
        while len(listed) <= limit:
            ids = await self._ids(tenant, after, is_descending=is_descending)
            if not ids:
                break
            after = ids[-1]
            listed += [record for record in await self._records(ids) if not purpose or record.purpose == purpose]
        return FilePage(listed[:limit], len(listed) > limit)

    async def delete(self, record: FileRecord) -> bool:
        """Forget a file, and delete its content; return whether it was there."""
        was_there = bool(await self.queue.run(drop_file_call(record)))
        await self.store.delete(record.key)
        return was_there

    async def _ids(self, tenant: str, after: str, *, is_descending: bool) -> list[str]:
        bounds = (f"({after}" if after else ("+" if is_descending else "-"), "-" if is_descending else "+")
        ids: list[bytes] = await answer_of(
            self.queue.client.zrange(
                index_key(tenant),
                *bounds,
                desc=is_descending,
                bylex=True,
                offset=0,
                num=_PAGE,
            )
        )
        return [file_id.decode(errors="replace") for file_id in ids]

    async def _records(self, ids: list[str]) -> list[FileRecord]:
        async with self.queue.client.pipeline(transaction=False) as pipe:
            for file_id in ids:
                pipe.get(file_key(file_id))
            answers: list[bytes | None] = await answer_of(pipe.execute())
        records = [record for raw in answers if (record := read_file(raw))]
        return [record for record in records if not _has_expired(record)]

    def _quota_error(self, files: int, used: int) -> FileQuotaError:
        return FileQuotaError(
            f"there are {files} files of {used / MB:.0f} MB already, those that batches wrote among them, and may be "
            f"{self.settings.max_files} of {self.settings.max_total_mb} MB ([files].max_files, max_total_mb): delete "
            "some first"
        )


def new_file_id() -> str:
    """Return an id; those of later files are later in the alphabet."""
    return f"file-{uuid_utils.uuid7().hex}"


def _has_expired(record: FileRecord) -> bool:
    return record.expires_at is not None and record.expires_at <= time.time()


async def answer_of(asked: Awaitable[Any] | Any) -> Any:  # noqa: ANN401  (as redis-py has it)
    """Return what Redis answers.

    Raises:
        QueueUnreachableError: it does not, or refuses.

    """
    try:
        return await asked
    except (RedisError, OSError) as error:
        raise unreachable("cannot read files", error) from error
