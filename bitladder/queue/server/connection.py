"""Connections to Redis, or to the primary that the Sentinels name: short limits for commands, long ones for waits."""

from __future__ import annotations

import ssl
from typing import Any

import redis
import redis.asyncio
from redis import sentinel
from redis.asyncio import sentinel as aio_sentinel
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from bitladder.errors import ConfigError
from bitladder.queue.server import sockets
from bitladder.queue.server.passwords import PasswordFile
from bitladder.queue.server.pools import Pool, SentinelPool
from bitladder.settings.redis_section import RedisSettings

# One connection per command under way. By default redis-py opens a hundred and refuses further commands.
MAX_CONNECTIONS = 1000


def connect(settings: RedisSettings, *, wait_s: float = 0) -> redis.asyncio.Redis:
    """Return an asyncio client; `wait_s` is how long its blocking commands may wait.

    Raises:
        ConfigError: see `check_files` and `read_password`.

    """
    options = _options(settings, settings.timeout_s + wait_s) | {
        # One more try on a fresh connection: the old one may have died while idle.
        "retry": AsyncRetry(NoBackoff(), 1),
        "max_connections": MAX_CONNECTIONS,
    }
    if not settings.sentinels:
        # Not Pool.from_url: for rediss:// and unix:// it takes redis-py's own connections, whatever it is told.
        pool = Pool(**options | parse_url(settings.url) | {"connection_class": sockets.AIO[settings.scheme]})
        return redis.asyncio.Redis.from_pool(pool)
    options = _in_url(settings) | options | {"connection_class": sockets.AIO_SENTINEL[settings.scheme]}
    client: redis.asyncio.Redis = _asked(aio_sentinel.Sentinel, settings).master_for(
        settings.sentinel_name, connection_pool_class=SentinelPool, **options
    )
    return client


def connect_sync(settings: RedisSettings) -> redis.Redis:
    """Return a blocking client, for threads and batch producers.

    Raises:
        ConfigError: see `check_files` and `read_password`.

    """
    options = _options(settings, settings.timeout_s * 5) | {"retry": Retry(NoBackoff(), 1)}
    if not settings.sentinels:
        return redis.Redis.from_url(settings.url, **options, connection_class=sockets.SYNC[settings.scheme])
    options = _in_url(settings) | options | {"connection_class": sockets.SYNC_SENTINEL[settings.scheme]}
    client: redis.Redis = _asked(sentinel.Sentinel, settings).master_for(settings.sentinel_name, **options)
    return client


def check_files(settings: RedisSettings) -> None:
    """Read the certificates now: a connection that fails later only says that there is no such file.

    Raises:
        ConfigError: a file does not exist, cannot be read, or holds no certificate.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        key, expected = "ca_file", "certificates to trust"
        if settings.ca_file:
            context.load_verify_locations(settings.ca_file)
        key, expected = "cert_file", "a certificate, and redis.key_file its private key without a passphrase"
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: "")
    except OSError as error:  # SSLError is one
        path = getattr(settings, key)
        raise ConfigError(f"redis.{key} must be a PEM file with {expected}, got {path!r}: {error}") from error


def sentinels_of(settings: RedisSettings) -> sentinel.Sentinel:
    """Return a client of the Sentinels themselves."""
    sentinels: sentinel.Sentinel = _asked(sentinel.Sentinel, settings)
    return sentinels


def _options(settings: RedisSettings, answer_s: float) -> dict[str, Any]:
    """Return the options of every connection to the primary."""
    # Unix sockets have no limit for connecting.
    limit = {} if settings.scheme == "unix" else {"socket_connect_timeout": settings.timeout_s}
    # Job ids go back to Redis as the bytes they came as (bitladder/ids.py).
    return {"socket_timeout": answer_s, "encoding_errors": "surrogateescape", **limit, **_identity(settings)}


def _identity(settings: RedisSettings) -> dict[str, Any]:
    """Return the options by which this process and the server authenticate each other."""
    check_files(settings)
    password = settings.password.get_secret_value() if settings.password else None
    options: dict[str, Any] = {"username": settings.username, "password": password}
    if settings.password_file:
        options = {"credential_provider": PasswordFile(settings.username, settings.password_file)}
    tls = {"ssl_ca_certs": settings.ca_file, "ssl_certfile": settings.cert_file, "ssl_keyfile": settings.key_file}
    return options | {name: file for name, file in tls.items() if file}


def _in_url(settings: RedisSettings) -> dict[str, Any]:
    """Return the options in the URL; the address of the primary is not among them, it comes from the Sentinels."""
    url: dict[str, Any] = redis.connection.parse_url(settings.url)  # type: ignore[no-untyped-call]  # redis-py
    return {key: value for key, value in url.items() if key not in ("host", "port", "connection_class")}


def _asked(sentinels: Any, settings: RedisSettings) -> Any:  # noqa: ANN401  (redis-py's, of either kind)
    """Return a client of the Sentinels, with short limits: a dead Sentinel must not delay the question to the next."""
    limits = {"socket_timeout": settings.timeout_s, "socket_connect_timeout": settings.timeout_s}
    return sentinels(settings.sentinel_addresses, sentinel_kwargs=limits)
