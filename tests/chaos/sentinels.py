"""A primary, its replica, and three Sentinels that put the one in the other's place: all of them real processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Self

import redis

from bitladder.queue.server.embedded import server_command
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import free_port, wait_until

NAME = "mymaster"
# A primary that is silent for so long is replaced; a failover takes a second or two more.
DOWN_AFTER_MS = 1000
FAST = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
RULES = """
bind 127.0.0.1
port {port}
dir {folder}
sentinel monitor {name} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {name} {down_after_ms}
sentinel failover-timeout {name} 5000
"""


class Watched:
    """A primary with its replicas, and the three that watch them."""

    def __init__(self, folder: Path, replicas: int = 1, down_after_ms: int = DOWN_AFTER_MS, *options: str) -> None:
        self._folder, self._down_after_ms, self._options = folder, down_after_ms, options
        self.ports = [free_port() for _ in range(1 + replicas)]
        self.sentinel_ports = [free_port() for _ in range(3)]
        self._commands: dict[int, list[str]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.sentinel_ports]

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        for port in list(self._processes):
            self.kill(port)

    def start(self, port: int) -> None:
        self._processes[port] = subprocess.Popen(
            self._commands[port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self, port: int) -> None:
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def primary(self) -> int:
        """Return the port of the server that the first Sentinel takes for the primary."""
        return self._primary_of(self.sentinel_ports[0])

    def primary_after(self, former: int) -> int:
        """Wait until every Sentinel names another server than the former primary, and return its port.

        The Sentinel that leads a failover knows its end first; the others hear of it within seconds.
        """
        wait_until(lambda: former not in map(self._primary_of, self.sentinel_ports), "all name the new primary")
        return self.primary()

    def _primary_of(self, sentinel_port: int) -> int:
        host_and_port: Any = self._asked(sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return int(host_and_port[1])

    def _begin(self) -> None:
        first, *replicas = self.ports
        self._commands[first] = self._server(first)
        self.start(first)
        for port in replicas:
            self._commands[port] = [*self._server(port), "--replicaof", "127.0.0.1", str(first)]
            self.start(port)
        wait_until(lambda: all(self._is_linked(port) for port in replicas), "the replicas have their primary's data")
        for port in self.sentinel_ports:
            self._commands[port] = self._sentinel(port)
            self.start(port)
        wait_until(self._is_settled, "the Sentinels know each other and the replica")

    def _server(self, port: int) -> list[str]:
        settings = RedisSettings(url=f"redis://127.0.0.1:{port}/0", data_dir=str(self._folder / str(port)))
        return [*server_command(settings), *FAST, *self._options]

    def _sentinel(self, port: int) -> list[str]:
        """Write one Sentinel's file, which it rewrites as it learns."""
        folder = self._folder / str(port)
        folder.mkdir()
        rules = RULES.format(
            port=port, folder=folder, name=NAME, primary=self.ports[0], down_after_ms=self._down_after_ms
        )
        (folder / "sentinel.conf").write_text(rules, encoding="utf-8")
        binary = self._commands[self.ports[0]][0]
        return [binary, str(folder / "sentinel.conf"), "--sentinel", "--loglevel", "warning"]

    def _is_settled(self) -> bool:
        return all(self._knows(port) for port in self.sentinel_ports)

    def _knows(self, port: int) -> bool:
        try:
            primary = self._asked(port, "SENTINEL", "MASTER", NAME)
        except redis.RedisError:
            return False
        return (primary["num-other-sentinels"], int(primary["num-slaves"])) == ("2", len(self.ports) - 1)

    def _is_linked(self, port: int) -> bool:
        try:
            return "master_link_status:up" in self._asked(port, "INFO", "replication")
        except redis.RedisError:
            return False

    @staticmethod
    def _asked(port: int, *words: str) -> Any:  # noqa: ANN401  (whatever a Sentinel says)
        with redis.Redis(port=port, socket_timeout=2, decode_responses=True) as client:
            client.set_response_callback("INFO", lambda text, **_: text)
            return client.execute_command(*words)
