"""A store in a bucket of S3, or of a server that speaks as S3 does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore import store as stores
from obstore.exceptions import BaseError
from obstore.exceptions import NotFoundError as NoSuchKeyError

from dispatcher.batch.object_store import ObjectMissingError, StoredObject, StoreError, checked

if TYPE_CHECKING:
    from obstore import GetOptions

# Parts of an upload, and how many of them are on their way at once: what an upload keeps in memory. S3 takes 10,000
# parts, which are 48 GiB.
_UPLOADED_BYTES, _AT_ONCE = 5 * 2**20, 1
_PART_BYTES = 256 * 1024
# A request waits meanwhile.
_RETRIES, _RETRY_TIME = 4, timedelta(seconds=30)
# Of a server's error, whose body obstore repeats.
_MAX_ERROR_CHARS = 300


class S3Store:
    """Objects below a prefix of a bucket. Where the server is, and the rights, are read as Amazon's tools read them.

    In the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; or the role of the
    machine or container.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._store = stores.S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": True},  # where the server's address says http
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME},
        )

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """See Store."""
        counted = _Counted(parts)
        with _named_errors():
            try:
                await obstore.put_async(
                    self._store, checked(key), counted, chunk_size=_UPLOADED_BYTES, max_concurrency=_AT_ONCE
                )
            except BaseError:
                if counted.error:  # obstore wraps it
                    raise counted.error from None
                raise
        return counted.size

    async def read(self, key: str, start: int, length: int) -> bytes:
        """See Store."""
        size = await self.size(key)
        length = min(length, size - start)
        if length <= 0:
            return b""
        with _named_errors():
            return bytes(await obstore.get_range_async(self._store, checked(key), start=start, length=length))

    async def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """See Store."""
        if start and start >= await self.size(key):
            return
        options: GetOptions = {"range": {"offset": start}} if start else {}  # an empty object has no range
        with _named_errors():
            answer = await obstore.get_async(self._store, checked(key), options=options)
            async for part in answer.stream(min_chunk_size=_PART_BYTES):
                yield bytes(part)

    async def size(self, key: str) -> int:
        """See Store."""
        with _named_errors():
            return (await obstore.head_async(self._store, checked(key)))["size"]

    async def delete(self, key: str) -> None:
        """See Store."""
        try:
            with _named_errors():
                await obstore.delete_async(self._store, checked(key))
        except ObjectMissingError:
            pass

    async def objects(self, start: str) -> AsyncIterator[StoredObject]:
        """See Store."""
        with _named_errors():
            async for some in obstore.list(self._store, checked(start)):
                for entry in some:
                    yield StoredObject(entry["path"], entry["last_modified"].timestamp())

    async def aclose(self) -> None:
        """See Store: nothing is open between two calls."""


class _Counted:
    """Parts that pass by, how many bytes they had, and the error that ended them."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self.size = 0
        self.error: BaseException | None = None
        self._parts = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            part = await anext(self._parts)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        self.size += len(part)
        return part


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except (NoSuchKeyError, FileNotFoundError) as error:
        raise ObjectMissingError("the store has no such object") from error
    except (BaseError, OSError) as error:
        raise StoreError(f"the bucket of files: {str(error)[:_MAX_ERROR_CHARS]}") from error
