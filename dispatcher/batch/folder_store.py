"""A store in a folder: on a disk of this machine, or one that all intakes share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from dispatcher.batch.object_store import ObjectMissingError, StoredObject, StoreError, checked

T = TypeVar("T")
# What is read or written at once.
_PART_BYTES = 256 * 1024
# Operations at once, each of which a slow disk may hold up.
_THREADS = 4
# Ends of a crash: a file that was being written. None is written for longer than this without a byte.
_UNFINISHED = ".part"
_UNFINISHED_S = 3600.0


class FolderStore:
    """Files below a folder that nobody else can read. Disks may be slow: threads wait for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, "store")

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """See Store: a file gets its name once all of it is on the disk."""
        path = self._path(key)
        unfinished = path.with_name(f"{path.name}{_UNFINISHED}{secrets.token_hex(8)}")
        created: list[BinaryIO] = []
        try:
            await self._run(lambda: created.append(_create(unfinished, self._folder)))
            size = await self._fill(created[0], parts)
            await self._run(lambda: _finish(created[0], unfinished, path))
        except BaseException:
            for file in created:
                await self._run(lambda: _discard(file, unfinished))  # noqa: B023  (it is awaited at once)
            raise
        return size

    async def _fill(self, file: BinaryIO, parts: AsyncIterator[bytes]) -> int:
        size, waiting = 0, bytearray()
        async for part in parts:
            size += len(part)
            waiting += part
            if len(waiting) >= _PART_BYTES:
                full, waiting = waiting, bytearray()
                await self._run(lambda: file.write(full))  # noqa: B023  (it is awaited at once)
        await self._run(lambda: file.write(waiting))
        return size

    async def read(self, key: str, start: int, length: int) -> bytes:
        """See Store."""
        return await self._run(lambda: _read(self._path(key), start, length))

    async def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """See Store. The file is open all the while: it can be read to its end, even once it is deleted."""
        opened: list[BinaryIO] = []  # there even where the caller is cancelled while the thread opens it
        try:
            await self._run(lambda: opened.append(_open(self._path(key), start)))
            while part := await self._run(lambda: opened[0].read(_PART_BYTES)):
                yield part
        finally:
            for file in opened:
                file.close()

    async def size(self, key: str) -> int:
        """See Store."""
        return await self._run(lambda: self._path(key).stat().st_size)

    async def delete(self, key: str) -> None:
        """See Store."""
        await self._run(lambda: _delete(self._path(key)))

    async def objects(self, start: str) -> AsyncIterator[StoredObject]:
        """See Store. What a crash left unfinished is removed on the way."""
        for entry in await self._run(lambda: self._list(checked(start))):
            yield entry

    async def aclose(self) -> None:
        """See Store."""
        await asyncio.to_thread(self._threads.shutdown)

    def _path(self, key: str) -> Path:
        return self._folder / checked(key)

    def _list(self, start: str) -> list[StoredObject]:
        listed = []
        for path in (self._folder / start).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
                status = path.stat()
                if path.is_dir():
                    continue
                if _UNFINISHED not in path.name:
                    listed.append(StoredObject(path.relative_to(self._folder).as_posix(), status.st_mtime))
                elif status.st_mtime < time.time() - _UNFINISHED_S:
                    path.unlink()
        return listed

    async def _run(self, work: Callable[[], T]) -> T:
        """Do this in a thread, and wait until it is done, even if the caller is cancelled: its files are in use."""
        with _named_errors():
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                with contextlib.suppress(OSError):
                    await running
                raise


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissingError("the store has no such object") from error
    except OSError as error:
        raise StoreError(f"the folder of files: {error}") from error


def _create(path: Path, root: Path) -> BinaryIO:
    try:
        return _create_in(path, root)
    except FileNotFoundError:  # another deleted the folder's last file
        return _create_in(path, root)


def _create_in(path: Path, root: Path) -> BinaryIO:
    below = [folder for folder in path.parents if folder.is_relative_to(root)]
    for folder in reversed(below):
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(folder.parent)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)


def _finish(file: BinaryIO, unfinished: Path, path: Path) -> None:
    os.fsync(file.fileno())
    file.close()
    unfinished.rename(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are there
        path.parent.rmdir()


def _discard(file: BinaryIO, unfinished: Path) -> None:
    with contextlib.suppress(OSError):
        file.close()
    unfinished.unlink(missing_ok=True)


def _open(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file


def _read(path: Path, start: int, length: int) -> bytes:
    with _open(path, start) as file:
        return file.read(length)
