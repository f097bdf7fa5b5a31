"""Files that have expired and contents without a record are deleted, and nothing else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import redis

from bitladder.errors import NotFoundError, QueueUnreachableError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from dispatcher.batch.file_service import Files
from dispatcher.batch.orphans import delete_expired, delete_orphans
from dispatcher.batch.store_choice import open_store
from tests.conftest import make_settings


@pytest.fixture
async def files(settings: Settings, tmp_path: Path) -> AsyncIterator[Files]:
    queue, objects = JobQueue(connect(settings.redis), settings), open_store(str(tmp_path / "files"))
    yield Files(queue, objects)
    await objects.aclose()
    await queue.aclose()


async def parts(data: bytes = b"{}\n") -> AsyncIterator[bytes]:
    yield data


def kept(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "files").rglob("*") if path.is_file()}


async def test_a_file_ends_when_it_expires_and_frees_its_tenants_room(
    files: Files, tmp_path: Path, store: redis.Redis
) -> None:
    now = int(time.time())
    gone, stays, endless = [
        await files.create("acme", parts(), purpose="batch", filename="x", expires_at=expires_at)
        for expires_at in (now - 1, now + 100, None)
    ]

    with pytest.raises(NotFoundError):  # before the sweep, too
        await files.get("acme", gone.id)
    assert [record.id for record in (await files.page("acme", limit=10)).files] == [endless.id, stays.id]
    assert await delete_expired(files) == 1
    assert await delete_expired(files) == 0

    assert kept(tmp_path) == {stays.id, endless.id}
    assert store.exists(f"bl:file:{gone.id}") == 0
    assert store.hget("bl:file_sums", "acme") == b"6"
    for record in (stays, endless):
        assert await files.delete(record)
        assert not await files.delete(record)
    assert {key for key in store.keys("*") if b"file" in key} == set()


async def test_a_file_that_is_made_twice_with_one_id_counts_once(files: Files, store: redis.Redis) -> None:
    for _ in range(2):
        await files.create("acme", parts(), purpose="batch_output", filename="x", file_id="file-1")

    assert len((await files.page("acme", limit=10)).files) == 1
    assert store.hget("bl:file_sums", "acme") == b"3"


async def test_an_old_content_without_a_record_is_deleted(files: Files, tmp_path: Path, store: redis.Redis) -> None:
    assert await delete_orphans(files) == 0
    listed = await files.create("acme", parts(), purpose="batch", filename="x")
    for owner, name in (("file-lost", ""), ("file-new", ""), ("batch_lost", "index"), ("batch_runs", "index")):
        await files.store.write(await files.key_of(owner, name), parts())
    await files.store.write("another-store/file-1", parts())
    store.set("bl:batch:batch_runs", "{}")
    for path in (tmp_path / "files").rglob("*"):
        if path.is_file() and path.name != "file-new":
            os.utime(path, (0, 0))

    assert await delete_orphans(files) == 2

    left = {
        path.relative_to(tmp_path / "files").parts[1:] for path in (tmp_path / "files").rglob("*") if path.is_file()
    }
    assert left == {(listed.id,), ("file-new",), ("batch_runs", "index"), ("file-1",)}


async def test_a_file_is_as_safe_as_a_job_before_its_client_hears_of_it(redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(redis_url, queue__wait_replicas=1)  # and there is none
    queue, objects = JobQueue(connect(settings.redis), settings), open_store(str(tmp_path / "files"))

    with pytest.raises(QueueUnreachableError, match="0 replicas had it"):
        await Files(queue, objects).create("acme", parts(), purpose="batch", filename="x")

    await objects.aclose()
    await queue.aclose()


async def test_records_that_another_program_has_spoiled_end_too(files: Files, store: redis.Redis) -> None:
    other = await files.create("acme", parts(), purpose="batch", filename="x")
    for name, changes in {"file-liar": {}, "file-way": {"id": "file-way", "key": "../../x"}, "file-junk": None}.items():
        record = msgspec.json.encode(msgspec.to_builtins(other) | changes) if changes is not None else b"\xff"
        store.set(f"bl:file:{name}", record)
        store.zadd("bl:file_ends", {name: 1})
        with pytest.raises(NotFoundError):
            await files.get("acme", name)

    assert await asyncio.wait_for(delete_expired(files), 5) == 0

    assert store.zcard("bl:file_ends") == 0
    assert (await files.get("acme", other.id)).key == other.key
