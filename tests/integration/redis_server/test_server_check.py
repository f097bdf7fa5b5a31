"""A Redis that can never serve is refused in one line, by asyncio and blocking clients alike."""

from __future__ import annotations

import asyncio
import http.server
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from bitladder.cli.output import exit_code
from bitladder.errors import BitladderError, ConfigError, QueueUnreachableError
from bitladder.producer import Producer
from bitladder.queue.checks.server_check import RefusedError, check_server, check_server_sync
from bitladder.queue.server.connection import connect, connect_sync
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import free_port, make_settings, wait_until
from tests.integration.redis_server.servers import BINARIES, running, version_6_2

PASSWORD = "SECRET#with/all@of?them"  # noqa: S105  (of the test)
REPLICA = "is a read-only replica: redis.url must name the primary, or redis.sentinels"
ASKED = "asks for a password: set redis.password or redis.password_file"
WRONG = "refuses the user or the password: check redis.username, and redis.password or redis.password_file"
ALL = ("--user", "default", "on", "nopass", "~*", "&*", "+@all")
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "cluster": (("--cluster-enabled", "yes"), {}, "runs in cluster mode"),
    "cluster, with slots": (("--cluster-enabled", "yes"), {"slots": True}, "runs in cluster mode"),
    "no password": (("--requirepass", PASSWORD), {}, ASKED),
    "wrong password": (("--requirepass", PASSWORD), {"password": "other"}, WRONG),
    "unknown user": ((), {"username": "nobody", "password": "other"}, WRONG),
    "replica": (("--replicaof", "127.0.0.1", "1"), {}, REPLICA),
    "writable replica": (("--replicaof", "127.0.0.1", "1", "--replica-read-only", "no"), {}, REPLICA),
    "evicting": (("--maxmemory-policy", "allkeys-lru"), {}, "must be 'noeviction'"),
    "database": (("--databases", "1"), {"database": 7}, "has no such database"),
    "no INFO": ((*ALL, "-info"), {}, "denies its user a right: give the user the"),
    "no scripts": ((*ALL, "-evalsha"), {}, "in compose/redis.acl"),
    "no SET": ((*ALL, "-set"), {}, "denies its user default SET bl:protocol x"),
}


def error_of(settings: RedisSettings) -> BitladderError:
    """Return how the check ends, which must be the same for both kinds of clients."""

    async def check() -> None:
        async with connect(settings) as client:
            await check_server(client, settings, ["SET bl:protocol x"])

    with pytest.raises(BitladderError) as first:
        asyncio.run(check())
    with pytest.raises(BitladderError) as second, connect_sync(settings) as blocking:
        check_server_sync(blocking, settings, ["SET bl:protocol x"])
    assert type(first.value) is type(second.value)
    assert exit_code(first.value) == exit_code(second.value)
    return first.value


@pytest.mark.parametrize("binary", BINARIES, ids=["valkey", "redis"][: len(BINARIES)])
@pytest.mark.parametrize("case", CASES)
def test_a_redis_that_can_never_serve_is_one_line_that_says_what_to_set(
    tmp_path: Path, case: str, binary: str | None
) -> None:
    options, client_options, expected = CASES[case]
    client = dict(client_options)
    with running(tmp_path, *options, binary=binary) as url:
        if client.pop("slots", None):
            with redis.Redis.from_url(url) as node:
                node.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                wait_until(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "it serves all slots")
        url = url.removesuffix("0") + str(client.pop("database", 0))
        settings = make_settings(url, **{f"redis__{key}": value for key, value in client.items()})
        error = error_of(settings.redis)
        with pytest.raises(ConfigError, match=re.escape(expected)):
            Producer(settings)

    assert isinstance(error, ConfigError)
    assert f"Redis at {url} " in str(error)
    assert expected in str(error)
    assert "\n" not in str(error)
    assert PASSWORD not in str(error)


def test_a_version_before_scripts_had_flags_is_named() -> None:
    with version_6_2() as url:
        error = error_of(make_settings(url).redis)

    assert isinstance(error, ConfigError)
    assert str(error).startswith(f"Redis at {url} has version 6.2.14: it must be Redis 7.0 or Valkey 7.2, or a newer")


def test_what_is_no_redis_is_named() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        error = error_of(make_settings(f"redis://127.0.0.1:{server.server_address[1]}/0").redis)
        server.shutdown()

    assert isinstance(error, ConfigError)
    assert "does not speak Redis' protocol" in str(error)


def test_a_server_that_does_not_answer_is_waited_for() -> None:
    error = error_of(make_settings(f"redis://127.0.0.1:{free_port()}/0").redis)

    assert isinstance(error, QueueUnreachableError)
    assert not isinstance(error, RefusedError)


def test_a_primary_that_waits_for_replicas_refuses_for_now(tmp_path: Path) -> None:
    with running(tmp_path, "--min-replicas-to-write", "1") as url:
        error = error_of(make_settings(url).redis)

    assert isinstance(error, RefusedError)
    assert "min-replicas-to-write" in str(error)


def test_a_full_server_serves_those_that_are_there(tmp_path: Path) -> None:
    with running(tmp_path, "--maxmemory", "1") as url, connect_sync(make_settings(url).redis) as client:
        check_server_sync(client, make_settings(url).redis, ())
