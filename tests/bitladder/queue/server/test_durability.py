"""queue.durability and queue.wait_replicas: what is sent behind a submission, and which servers are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from bitladder.errors import AcceptanceUnknownError, ConfigError
from bitladder.producer import Producer
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.queue.server.durability import check_durability
from bitladder.settings.queue_section import Durability
from tests.bitladder.queue.test_job_queue import job
from tests.chaos.valkey import Valkey
from tests.conftest import make_settings, wait_until
from tests.integration.redis_server.servers import BINARIES, running

BODY = {"model": "smollm2", "prompt": "aaaa"}


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("safe"), "fsync") as valkey:
        yield valkey


def calls(store: redis.Redis, command: str) -> int:
    stats: dict[str, Any] = store.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_by_default_nothing_is_sent_behind_a_submission(safe: Valkey) -> None:
    settings = make_settings(safe.url)
    queue = JobQueue(connect(settings.redis), settings)
    await queue.submit([job()])  # loads the script
    safe.store.config_resetstat()

    await queue.submit([job()])
    await queue.aclose()

    assert (calls(safe.store, "evalsha"), calls(safe.store, "waitaof"), calls(safe.store, "wait")) == (1, 0, 0)


async def test_with_fsync_the_answer_waits_for_the_disk_also_where_the_job_is_a_repeat(safe: Valkey) -> None:
    settings = make_settings(safe.url, queue__durability="fsync")
    queue, mine, other = JobQueue(connect(settings.redis), settings), job(), job("int8")
    safe.store.script_flush()
    safe.store.config_resetstat()

    first = await queue.submit([mine, other])
    again = await queue.submit([mine])
    await queue.aclose()

    assert first == [mine.job_id, other.job_id]
    assert again == [mine.job_id]
    assert calls(safe.store, "waitaof") == 3  # one of them behind the scripts that were not known yet


def test_a_producer_stays_in_step_with_what_it_waits_for(safe: Valkey) -> None:
    safe.store.flushall()
    with Producer(make_settings(safe.url, queue__durability="fsync")) as producer:
        first = producer.submit(BODY)
        safe.store.script_flush()
        second = producer.submit(BODY)
        safe.store.script_flush()
        many = producer.submit_many(BODY for _ in range(600))

    waiting = safe.store.lrange("rq:queue:smollm2:int4:normal", 0, -1)
    batch = safe.store.lrange("rq:queue:smollm2:int4:batch", 0, -1)
    assert waiting == [first.encode(), second.encode()]
    assert batch == [str(number).encode() for number in many]


async def test_without_the_replicas_it_asks_for_it_is_not_known_whether_a_job_is_accepted(safe: Valkey) -> None:
    settings = make_settings(safe.url, queue__wait_replicas=1)
    queue, mine = JobQueue(connect(settings.redis), settings), job()

    (doubt,) = await queue.submit([mine])
    await queue.aclose()
    with Producer(settings) as producer, pytest.raises(AcceptanceUnknownError, match="0 replicas had it") as other:
        producer.submit(BODY)

    assert isinstance(doubt, AcceptanceUnknownError)
    assert doubt.job_id == mine.job_id
    assert all(safe.store.exists(f"rq:job:{job_id}") for job_id in (doubt.job_id, other.value.job_id))


async def checked(url: str, durability: Durability) -> None:
    settings = make_settings(url, queue__durability=durability)
    client = connect(settings.redis)
    try:
        await check_durability(client, settings)
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("server", "arguments", "expected"),
    [
        ("memory", (), "no append-only file"),
        ("everysec", ("--appendfsync", "no"), "appendfsync no"),
        # This server answers WAITAOF before its disk does; should a later one wait, it is right to be accepted.
        ("everysec", (), "appendfsync always"),
    ],
)
async def test_a_server_that_cannot_keep_the_promise_is_refused(
    tmp_path: Path, server: Durability, arguments: tuple[str, ...], expected: str
) -> None:
    with Valkey(tmp_path, server, *arguments) as valkey, pytest.raises(ConfigError, match=expected):
        await checked(valkey.url, "fsync")


async def test_a_server_without_a_file_is_warned_of_unless_memory_is_what_is_asked_for(tmp_path: Path) -> None:
    with Valkey(tmp_path, "memory") as valkey:
        with capture_logs() as asked:
            await checked(valkey.url, "memory")
        with capture_logs() as default:
            await checked(valkey.url, "everysec")

    assert asked == []
    assert ["append-only" in line["event"] for line in default] == [True]


async def test_a_server_that_does_not_say_how_it_syncs_is_warned_of(safe: Valkey) -> None:
    safe.store.acl_setuser("shut", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-config"])

    with capture_logs() as logs:
        await checked(safe.url.replace("redis://", "redis://shut:pw@"), "fsync")
    with capture_logs() as open_logs:
        await checked(safe.url, "fsync")

    assert ["appendfsync" in line["event"] for line in logs] == [True]
    assert open_logs == []


async def test_fewer_copies_than_replicas_are_warned_of(tmp_path: Path) -> None:
    with Valkey(tmp_path / "a", "everysec") as primary, Valkey(tmp_path / "b", "everysec") as replica:
        replica.store.replicaof("127.0.0.1", primary.url.rpartition(":")[2].removesuffix("/0"))
        with Valkey(tmp_path / "c", "everysec") as other:
            other.store.replicaof("127.0.0.1", primary.url.rpartition(":")[2].removesuffix("/0"))
            wait_until(lambda: primary.store.info("replication")["connected_slaves"] == 2, "both follow")
            settings = make_settings(primary.url, queue__wait_replicas=1)
            client = connect(settings.redis)
            with capture_logs() as logs:
                await check_durability(client, settings)
            await client.aclose()

    assert [(line["wait_replicas"], line["replicas"]) for line in logs] == [(1, 2)]


@pytest.mark.skipif(BINARIES[-1] is None, reason="redis-server is not installed (apt-get install redis-server)")
async def test_a_server_of_a_version_before_waitaof_is_refused_where_the_disk_must_confirm(tmp_path: Path) -> None:
    with running(tmp_path, "--appendfsync", "always", binary=BINARIES[-1]) as url:
        async with connect(make_settings(url).redis) as client:
            is_old = (await client.info())["redis_version"].startswith("7.0")
        if is_old:
            with pytest.raises(ConfigError, match=r"needs WAITAOF: Redis must have version 7\.2 or newer"):
                await checked(url, "fsync")
