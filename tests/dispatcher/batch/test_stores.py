"""A folder and a bucket keep objects in the same way."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest

from bitladder.errors import ConfigError
from dispatcher.batch.object_store import ObjectMissingError, Store, StoreError
from dispatcher.batch.store_choice import open_store
from tests.s3_server import s3_server

LARGE = os.urandom(2**20) * 17


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        access = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        boto3.client("s3", endpoint_url=url, **access).create_bucket(Bucket="files")
        yield url


@pytest.fixture(params=["folder", "bucket"])
async def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    place = str(tmp_path / "files")
    if request.param == "bucket":
        url = request.getfixturevalue("server")
        place = f"s3://files/{tmp_path.name}"
        for name, value in (("ENDPOINT_URL", url), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
            monkeypatch.setenv(f"AWS_{name}", value)
    store = open_store(place)
    yield store
    await store.aclose()


async def parts(*data: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for part in data:
        yield part
    if error:
        raise error


async def listed(store: Store, start: str) -> list[str]:
    return sorted([entry.key async for entry in store.objects(start)])


async def test_an_object_is_read_as_it_was_written(objects: Store) -> None:
    size = await objects.write("a/file-1", parts(LARGE[:5], b"", LARGE[5:]))

    assert size == await objects.size("a/file-1") == len(LARGE)
    assert b"".join([part async for part in objects.stream("a/file-1")]) == LARGE
    assert b"".join([part async for part in objects.stream("a/file-1", len(LARGE) - 3)]) == LARGE[-3:]
    assert [part async for part in objects.stream("a/file-1", len(LARGE))] == []
    assert await objects.read("a/file-1", 2**20 - 2, 4) == LARGE[2**20 - 2 : 2**20 + 2]
    assert await objects.read("a/file-1", len(LARGE) - 2, 100) == LARGE[-2:]
    assert await objects.read("a/file-1", len(LARGE), 100) == b""


async def test_an_empty_object_can_be_stored_and_one_can_be_replaced(objects: Store) -> None:
    assert await objects.write("a/file-1", parts()) == 0
    assert [part async for part in objects.stream("a/file-1")] == []

    assert await objects.write("a/file-1", parts(b"new")) == 3
    assert await objects.read("a/file-1", 0, 9) == b"new"


@pytest.mark.parametrize("error", [ValueError("the upload broke"), asyncio.CancelledError()])
async def test_a_write_that_breaks_leaves_what_was_there(objects: Store, error: BaseException) -> None:
    await objects.write("a/file-1", parts(b"old"))

    for key in ("a/file-1", "a/file-2"):
        with pytest.raises(type(error)):
            await objects.write(key, parts(LARGE, error=error))

    assert await objects.read("a/file-1", 0, 9) == b"old"
    assert await listed(objects, "a") == ["a/file-1"]


async def test_a_missing_object_is_named_as_such_and_its_deletion_is_no_error(objects: Store) -> None:
    await objects.write("a/file-1", parts(b"x"))
    await objects.delete("a/file-1")
    await objects.delete("a/file-1")

    with pytest.raises(ObjectMissingError):
        await objects.size("a/file-1")
    with pytest.raises(ObjectMissingError):
        await objects.read("a/file-1", 0, 1)
    with pytest.raises(ObjectMissingError):
        await anext(objects.stream("a/file-1"))


async def test_objects_are_listed_below_their_prefix_alone(objects: Store) -> None:
    for key in ("a/file-1", "a/batch_2/index", "b/file-3"):
        await objects.write(key, parts(b"x"))

    assert await listed(objects, "a") == ["a/batch_2/index", "a/file-1"]
    assert await listed(objects, "c") == []


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/../b", "", ".part", "A", "a\nb"])
async def test_a_key_that_could_leave_the_store_is_refused(objects: Store, key: str) -> None:
    with pytest.raises(ValueError, match="made of ids"):
        await objects.write(key, parts(b"x"))
    with pytest.raises(ValueError, match="made of ids"):
        await objects.read(key, 0, 1)


async def test_a_folder_is_for_its_owner_alone_and_a_crash_leaves_no_file_for_ever(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "files"))
    await store.write("a/file-1", parts(b"x"))
    unfinished = tmp_path / "files" / "a" / "file-2.part00"
    unfinished.write_bytes(b"half")

    assert await listed(store, "a") == ["a/file-1"]
    assert unfinished.exists()  # it may be being written
    os.utime(unfinished, (0, 0))
    assert await listed(store, "a") == ["a/file-1"]

    assert not unfinished.exists()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "files").rglob("*")}
    assert modes == {tmp_path / "files" / "a": 0o700, tmp_path / "files" / "a" / "file-1": 0o600}
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700
    await store.aclose()


async def test_a_place_that_cannot_be_written_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "files").write_bytes(b"a file, not a folder")
    store = open_store(str(tmp_path / "files"))

    with pytest.raises(StoreError) as error:
        await store.write("a/file-1", parts(b"x"))

    assert (error.value.status, error.value.code) == (503, "store_unavailable")
    await store.aclose()


@pytest.mark.parametrize("place", ["s3://", "s3:///prefix", "gs://bucket"])
async def test_a_place_that_is_neither_is_refused_at_the_start(place: str) -> None:
    with pytest.raises(ConfigError, match=f"files.store must be a folder or s3://bucket/prefix, got '{place}'"):
        open_store(place)


async def test_who_is_cancelled_while_a_file_is_opened_leaves_none_open(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "files"))
    await store.write("a/b", parts(b"one"))

    for key, work in (("a/b", store.stream("a/b").__anext__()), ("a/c", store.write("a/c", parts(b"two")))):
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)  # it has given the opening to a thread
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [entry for entry in open_files() if entry.endswith(key) or key in entry] == []
    assert [path.name for path in (tmp_path / "files" / "a").iterdir()] == ["b"]
    await store.aclose()


def open_files() -> list[str]:
    """Return the paths of the files that this process has open."""
    return [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink() and entry.exists()]
