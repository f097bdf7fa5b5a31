"""bitladder/queue/server/outage.py: one line when Redis is lost, one when it is back, none while both are starting."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from structlog.testing import capture_logs
from structlog.typing import EventDict

from bitladder.errors import QueueUnreachableError
from bitladder.queue.checks import server_watch
from bitladder.queue.checks.server_check import check_server
from bitladder.queue.checks.server_watch import ServerWatch
from bitladder.queue.server import outage, sockets
from bitladder.queue.server.connection import connect, connect_sync
from bitladder.queue.server.outage import Outage, check_at_start
from tests.conftest import OwnValkey


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Return the outage of a process that has just begun."""
    fresh = Outage()
    for user in (sockets, server_watch):
        monkeypatch.setattr(user, "OUTAGE", fresh)
    return fresh


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


async def test_a_server_that_starts_a_moment_later_is_waited_for_without_a_word(
    fresh: Outage, lines: list[EventDict], tmp_path: Path
) -> None:
    valkey = OwnValkey(tmp_path / "valkey")
    starting = threading.Timer(0.5, valkey.start)
    starting.start()
    client = connect(valkey.settings)
    try:
        await check_at_start(lambda: check_server(client, valkey.settings, ()))
    finally:
        starting.join()
        await client.aclose()
        valkey.kill()

    assert lines == []


async def test_a_server_that_does_not_start_is_named_after_a_while(
    fresh: Outage, lines: list[EventDict], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outage, "START_GRACE_S", 0.3)
    valkey = OwnValkey(tmp_path / "valkey")
    client = connect(valkey.settings)
    with pytest.raises(QueueUnreachableError):
        await check_at_start(lambda: check_server(client, valkey.settings, ()))
    await client.aclose()

    (line,) = lines
    assert (line["event"], line["log_level"]) == ("Redis is unreachable", "warning")
    assert valkey.url.split("/")[2] in line["error"]


async def test_an_outage_is_two_lines_however_many_calls_fail(
    fresh: Outage, lines: list[EventDict], own_valkey: OwnValkey
) -> None:
    client, other = connect(own_valkey.settings), connect_sync(own_valkey.settings)
    await client.ping()
    other.ping()
    own_valkey.kill()
    for _ in range(20):
        with pytest.raises((RedisError, OSError)):
            await client.ping()
        with pytest.raises((RedisError, OSError)):
            other.ping()
        await asyncio.sleep(0.01)
    own_valkey.start()
    await client.ping()
    other.ping()
    await client.aclose()
    other.close()

    lost, back = lines
    assert lost["event"] == "Redis is unreachable"
    assert back["event"] == f"Redis is back after {back['after_s']:g} s"
    assert 0.2 <= back["after_s"] < 20


async def test_a_password_that_is_changed_under_a_process_is_one_line_whoever_notices_it(
    fresh: Outage, lines: list[EventDict], own_valkey: OwnValkey
) -> None:
    client, other = connect(own_valkey.settings), connect_sync(own_valkey.settings)
    watch = ServerWatch(lambda: check_server(client, own_valkey.settings, ()))
    await watch.look()
    other.ping()
    other.config_set("requirepass", "SECRET")
    other.client_kill_filter(_type="normal", skipme=False)
    for _ in range(3):
        with pytest.raises(QueueUnreachableError):
            await watch.look()
        with pytest.raises((RedisError, OSError)):
            other.ping()
    await client.aclose()
    other.close()

    (line,) = lines
    assert (line["event"], line["log_level"]) == ("Redis cannot serve", "error")
    assert "asks for a password: set redis.password" in line["error"]


async def test_a_refusal_that_turns_into_another_is_told_and_so_is_a_server_that_goes_meanwhile(
    fresh: Outage, lines: list[EventDict], own_valkey: OwnValkey
) -> None:
    client = connect(own_valkey.settings)
    watch = ServerWatch(lambda: check_server(client, own_valkey.settings, ()))

    async def look() -> None:
        with contextlib.suppress(QueueUnreachableError):
            await watch.look()

    await client.config_set("maxmemory-policy", "allkeys-lru")
    await look()
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("min-replicas-to-write", 1)
    await look()
    await look()
    own_valkey.kill()
    await look()
    fresh.warn("claim failed")
    own_valkey.start()
    await look()
    fresh.warn("claim failed")
    await client.aclose()

    told = [(line["event"].partition(" after")[0], line.get("error", ""), line["log_level"]) for line in lines]
    assert [event for event, _, level in told if level != "debug"] == [
        "Redis cannot serve",
        "Redis cannot serve",
        "Redis is unreachable",
        "Redis is back",
        "claim failed",
    ]
    assert "noeviction" in told[0][1]
    assert "min-replicas-to-write" in told[1][1]
