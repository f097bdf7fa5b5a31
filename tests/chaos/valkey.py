"""A Valkey of one's own, to be killed and started again on the same folder."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

import redis

from bitladder.queue.server.embedded import is_answering, server_command
from bitladder.settings.queue_section import Durability
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import free_port, wait_until


class Valkey:
    """One server process."""

    def __init__(self, folder: Path, durability: Durability, *arguments: str) -> None:
        self.settings = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder))
        self.url = self.settings.url
        self.port = int(self.url.rpartition(":")[2].removesuffix("/0"))
        self.store = redis.Redis.from_url(self.url)
        self._command = [*server_command(self.settings, durability), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.kill()
        self.store.close()

    def start(self) -> None:
        """Start it and wait until it has read its file and answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: is_answering(self.settings), "Valkey answers", timeout_s=60)
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
