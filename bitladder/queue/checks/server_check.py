"""One check of a Redis: its version and mode, its policy, what its user may do, and whether a script may write.

What settings must change is a ConfigError, and ends a process that starts. What may end by itself is a
QueueUnreachableError, like a server that does not answer: it is waited for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from bitladder.errors import ConfigError, QueueUnreachableError
from bitladder.queue.calls import check_call
from bitladder.queue.checks.rights import Rights
from bitladder.queue.run_script import run, run_sync
from bitladder.queue.server.protocol import ProtocolMismatch
from bitladder.queue.server.refusals import CLUSTER, REPLICA, refusal_of, refused
from bitladder.settings.redis_section import RedisSettings

# Flags of scripts came with it, and what a script may ask about its user.
_MIN_VERSION = (7, 0)


class RefusedError(QueueUnreachableError):
    """Redis answers, and refuses what this process does; it may serve again by itself."""


async def check_server(client: redis.asyncio.Redis, settings: RedisSettings, rights: Rights) -> None:
    """Refuse a server that cannot serve a process that needs these rights.

    Raises:
        ConfigError: settings must change: this process's, or the server's.
        RefusedError: it refuses to write at the moment.
        QueueUnreachableError: it does not answer.

    """
    try:
        _check_info(await client.info(), settings)
        _check_rights(await run(client, check_call(rights)), settings)
    except (RedisError, OSError) as error:
        raise _error_of(error, settings) from error


async def check_writes(client: redis.asyncio.Redis, settings: RedisSettings) -> None:
    """Refuse a server at which scripts cannot write at the moment.

    Raises:
        ConfigError, RefusedError, QueueUnreachableError: see `check_server`.

    """
    try:
        await run(client, check_call(()))
    except (RedisError, OSError) as error:
        raise _error_of(error, settings) from error


def check_server_sync(client: redis.Redis, settings: RedisSettings, rights: Rights) -> None:
    """Do the same with a blocking client."""
    try:
        _check_info(client.info(), settings)
        _check_rights(run_sync(client, check_call(rights)), settings)
    except (RedisError, OSError) as error:
        raise _error_of(error, settings) from error


def version_of(info: dict[str, Any]) -> tuple[int, int]:
    """Return the version of Redis that a server is, or says that it can stand for."""
    match = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version")))
    return (int(match[1]), int(match[2])) if match else _MIN_VERSION


def _check_info(info: dict[str, Any], settings: RedisSettings) -> None:
    redis, policy = _name(settings), info.get("maxmemory_policy", "noeviction")
    if version_of(info) < _MIN_VERSION:
        raise ConfigError(
            f"{redis} has version {info['redis_version']}: it must be Redis 7.0 or Valkey 7.2, or a newer one, because "
            "older ones cannot run bitladder's scripts"
        )
    if info.get("cluster_enabled"):
        raise ConfigError(CLUSTER.text.format(redis=redis))
    if info.get("role") == "slave" and not settings.sentinels:
        raise ConfigError(REPLICA.text.format(redis=redis))
    if settings.check_policy and policy != "noeviction":
        raise ConfigError(
            f"{redis} has maxmemory-policy {policy!r}: it must be 'noeviction', or queued jobs vanish when memory is "
            "full (redis.check_policy = false switches this check off)"
        )


def _check_rights(denied: Sequence[bytes], settings: RedisSettings) -> None:
    if denied:
        shown = ", ".join(command.decode() for command in denied[:5]) + (", …" if len(denied) > 5 else "")
        raise ConfigError(
            f"{_name(settings)} denies its user {settings.username or 'default'} {shown}: give the user the rules of "
            "its role in compose/redis.acl"
        )


def _error_of(error: Exception, settings: RedisSettings) -> ConfigError | QueueUnreachableError:
    if isinstance(error, ProtocolMismatch):
        return ConfigError(str(error))
    refusal, redis = refusal_of(error), _name(settings)
    if refusal is None or (refusal is REPLICA and settings.sentinels):  # the next connection asks them again
        return QueueUnreachableError(f"cannot reach {redis}: {error}")
    kind = RefusedError if refusal.is_passing else ConfigError
    return kind(refused(refusal, error, redis))


def _name(settings: RedisSettings) -> str:
    return f"the primary {settings.sentinel_name!r}" if settings.sentinels else f"Redis at {settings.url}"
