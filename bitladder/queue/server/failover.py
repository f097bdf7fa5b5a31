"""A planned failover that loses no write: hold writes, let the replicas catch up, and only then change the primary.

`SENTINEL FAILOVER` alone loses what the old primary accepts between the promotion of a replica and its own demotion,
which takes the Sentinels ten seconds and more. `CLIENT PAUSE … WRITE` on the old primary closes that gap: writes
wait there unanswered, so no client is told that they were accepted. The pause also blocks what the Sentinels send
there, so this process makes the old primary a replica.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import RedisError

from bitladder.errors import BitladderError, ConfigError
from bitladder.queue.server.connection import connect_sync, sentinels_of
from bitladder.settings.redis_section import RedisSettings

# A pause ends by itself if this process dies; until the end of the failover it is renewed.
_PAUSE_MS = 15_000
_RENEW_EVERY_S = 3.0
_POLL_EVERY_S = 0.1

Say = Callable[[str], None]
Address = tuple[str, int]


class FailoverError(BitladderError):
    """The primary was not changed, or not in time."""

    code = "failover_failed"


class Failover:
    """One planned change of the primary, step by step.

    Its user in Redis needs CLIENT PAUSE, CLIENT KILL and REPLICAOF, as `admin` of compose/redis.acl has them.
    """

    def __init__(self, settings: RedisSettings, timeout_s: float, say: Say) -> None:
        if not settings.sentinels:
            raise ConfigError("redis.sentinels must be set: the Sentinels change the primary")
        self._settings, self._timeout_s, self._say = settings, timeout_s, say
        self._sentinels = sentinels_of(settings)

    def run(self) -> str:
        """Return the address of the new primary.

        Raises:
            FailoverError: a replica did not catch up, or the Sentinels did not change the primary, in time.

        """
        try:
            old = self._primary()
            with self._connect_to(old) as primary:
                self._change(primary, old)
            return _text(self._primary())
        except (RedisError, OSError) as error:
            raise FailoverError(f"the failover was given up: {error}") from error

    def _change(self, primary: redis.Redis, old: Address) -> None:
        replicas = _replicas(primary)
        if not replicas:
            raise FailoverError(f"the primary {_text(old)} has no connected replica that could take its place")
        self._say(f"primary {_text(old)}, {len(replicas)} replicas: holding writes")
        try:
            self._until(primary, lambda: _is_caught_up(primary), "every replica has all that was written")
            self._say("every replica has all that was written: asking the Sentinels for another primary")
            name = self._settings.sentinel_name
            self._sentinels.execute_command("SENTINEL", "FAILOVER", name, once=True)  # type: ignore[no-untyped-call]  # redis-py
            self._until(primary, lambda: self._primary() != old, "the Sentinels name another primary")
            host, port = self._primary()
            self._say(f"the new primary is {_text((host, port))}: the old one follows it")
            primary.replicaof(host, port)
            primary.client_kill_filter(
                _type="normal", skipme=True
            )  # waiting clients ask the Sentinels for the new primary
        finally:
            primary.client_unpause()

    def _until(self, primary: redis.Redis, condition: Callable[[], bool], description: str) -> None:
        """Wait for a condition, and keep the writes held meanwhile."""
        end, renew_s = time.monotonic() + self._timeout_s, 0.0
        while True:
            if time.monotonic() >= renew_s:
                primary.client_pause(_PAUSE_MS, all=False)
                renew_s = time.monotonic() + _RENEW_EVERY_S
            if condition():
                return
            if time.monotonic() > end:
                raise FailoverError(f"not within {self._timeout_s:g} s: {description}. Writes go on")
            time.sleep(_POLL_EVERY_S)

    def _primary(self) -> Address:
        host, port = self._sentinels.discover_master(self._settings.sentinel_name)  # type: ignore[no-untyped-call]  # redis-py
        return str(host), int(port)

    def _connect_to(self, address: Address) -> redis.Redis:
        """Return a client of this server, even when the Sentinels name another one later."""
        path = self._settings.url.partition("://")[2].partition("/")[2]
        url = f"{self._settings.scheme}://{_text(address)}/{path}"
        return connect_sync(self._settings.model_copy(update={"url": url, "sentinels": ()}))


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _replicas(primary: redis.Redis) -> list[dict[str, Any]]:
    info = primary.info("replication")
    return [replica for name, replica in info.items() if name.startswith("slave") and isinstance(replica, dict)]


def _is_caught_up(primary: redis.Redis) -> bool:
    written = primary.info("replication")["master_repl_offset"]
    return all(replica["state"] == "online" and replica["offset"] >= written for replica in _replicas(primary))
