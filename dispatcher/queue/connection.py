"""Connections to Redis: short limits for commands, long ones for waiting, and the check of its settings."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from dispatcher.errors import ConfigError, QueueUnreachableError
from dispatcher.sections import RedisSettings


def connect(settings: RedisSettings, *, wait_s: float = 0, most_connections: int | None = None) -> redis.asyncio.Redis:
    """Return an asyncio client; `wait_s` is how long its blocking commands may wait."""
    return redis.asyncio.Redis.from_url(
        settings.url,
        socket_timeout=settings.timeout_s + wait_s,
        # One more try on a fresh connection: the old one may have died while idle.
        retry=AsyncRetry(NoBackoff(), 1),
        max_connections=most_connections,
        **_connect_limit(settings),
        **_identity(settings),
    )


def connect_sync(settings: RedisSettings) -> redis.Redis:
    """Return a blocking client, for threads and batch producers."""
    return redis.Redis.from_url(
        settings.url,
        socket_timeout=settings.timeout_s * 5,
        retry=Retry(NoBackoff(), 1),
        **_connect_limit(settings),
        **_identity(settings),
    )


def _connect_limit(settings: RedisSettings) -> dict[str, Any]:
    """Unix sockets know no limit for connecting."""
    return {} if settings.url.startswith("unix:") else {"socket_connect_timeout": settings.timeout_s}


def _identity(settings: RedisSettings) -> dict[str, Any]:
    """Return who this process is to Redis, and how it knows that Redis is the right one."""
    password = settings.password.get_secret_value() if settings.password else None
    tls = {"ssl_ca_certs": settings.ca_file, "ssl_certfile": settings.cert_file, "ssl_keyfile": settings.key_file}
    return {"username": settings.username, "password": password} | {name: file for name, file in tls.items() if file}


async def check_server(client: redis.asyncio.Redis, settings: RedisSettings) -> None:
    """Refuse a Redis that may drop jobs when its memory is full.

    Raises:
        ConfigError: maxmemory-policy is not noeviction.
        QueueUnreachableError: there is no answer.

    """
    if not settings.check_policy:
        return
    try:
        policy = (await client.info("memory")).get("maxmemory_policy", "noeviction")
    except (RedisError, OSError) as error:
        raise QueueUnreachableError(f"cannot reach Redis at {settings.url}: {error}") from error
    if policy != "noeviction":
        raise ConfigError(
            f"Redis at {settings.url} has maxmemory-policy {policy!r}: it must be 'noeviction', or queued jobs vanish "
            "when memory is full (redis.check_policy = false switches this check off)"
        )
