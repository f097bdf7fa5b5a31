"""The processes under fire, and who starts them again when they end, as an init system would."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitladder.queue.server.embedded import server_command
from bitladder.settings.queue_section import Durability
from bitladder.settings.redis_section import RedisSettings
from tests.conftest import ROOT

# How long a process may take to end after SIGTERM: a worker's grace for what runs, a lease to hand it in, and some.
STOP_S = 60
BITLADDER = (sys.executable, "-m", "bitladder.cli.main")
# Ask a process to end in order.
ASKING = (signal.SIGTERM, signal.SIGHUP)
READY = '"worker ready"'


@dataclass(slots=True, kw_only=True)
class Life:
    """One process of a service, from its start to its end. Times are the wall clock's."""

    service: str
    pid: int
    log: Path
    began_s: float
    ended_s: float = math.inf
    signals: list[tuple[int, float]] = field(default_factory=list)  # with the time each was sent

    @property
    def sent(self) -> set[int]:
        return {number for number, _ in self.signals}

    @property
    def asked_s(self) -> float:
        """When it was first asked to end in order; infinity where it was not."""
        return min((at_s for number, at_s in self.signals if number in ASKING), default=math.inf)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def worker_names(self) -> list[str]:
        """Return under which names it claimed jobs."""
        return [json.loads(line)["worker"] for line in self.text().splitlines() if READY in line]


class Service:
    """One process that is started again whenever it ends, each with a log of its own."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name, self._command, self._environment, self._folder = name, command, dict(environment), folder
        self.lives: list[Life] = []
        self.odd_ends: list[str] = []  # without a signal of ours, or not as they should
        self.is_held_down = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look(self) -> None:
        """Start the process if it does not run; note how it ended."""
        if self._process is not None and not self.is_running:
            self._note_end(self._process.returncode)
            self._process = None
        if self._process is None and not self.is_held_down:
            path = self._folder / f"{self.name}.{len(self.lives)}.log"
            with path.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            self.lives.append(Life(service=self.name, pid=self._process.pid, log=path, began_s=time.time()))

    def signal(self, number: int) -> None:
        if self._process is not None and self.is_running:
            self.lives[-1].signals.append((number, time.time()))
            self._process.send_signal(number)

    def begin_stop(self) -> None:
        """Ask it to end for good."""
        self.is_held_down = True
        self.signal(signal.SIGCONT)
        if self.lives and signal.SIGTERM not in self.lives[-1].sent:  # a second one is another wish
            self.signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it for good."""
        self.begin_stop()
        if self._process is not None:
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.odd_ends.append(f"STUCK: {self.name} did not end within {STOP_S} s of SIGTERM")
                self._process.kill()
                self._process.wait()
        self.look()

    def _note_end(self, status: int) -> None:
        life = self.lives[-1]
        life.ended_s = time.time()
        fair = {-signal.SIGKILL} if signal.SIGKILL in life.sent else set()
        for number in life.sent & {*ASKING}:
            # A worker that has claimed nothing yet may end by the signal; uvicorn always does.
            fair |= {0} if life.worker_names() else {0, -number}
        if status not in fair:
            self.odd_ends.append(f"END: {self.name} ended with status {status} after signals {sorted(life.sent)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Valkey, intakes and workers."""

    valkey: Service
    intakes: list[Service]
    workers: list[Service]

    @property
    def all(self) -> list[Service]:
        return [self.valkey, *self.intakes, *self.workers]

    async def supervise(self) -> None:
        """Start again what has ended, until cancelled."""
        while True:
            for service in self.all:
                service.look()
            await asyncio.sleep(0.1)

    def stop_all_but_valkey(self) -> None:
        """End intakes and workers, all at the same time."""
        for service in (*self.workers, *self.intakes):
            service.begin_stop()
        for service in (*self.workers, *self.intakes):
            service.stop()

    def stop(self) -> None:
        """End everything, Valkey last."""
        self.stop_all_but_valkey()
        self.valkey.stop()

    def defects(self) -> Iterator[str]:
        """Yield what the processes themselves say has gone wrong."""
        for service in self.all:
            yield from service.odd_ends
            for life in service.lives:
                text = life.text()
                if (at := text.find("Traceback")) >= 0:
                    yield f"TRACEBACK: in the log of {service.name}: {text[max(0, at - 200) : at + 2000]}"


def make_fleet(
    valkey: RedisSettings,
    durability: Durability,
    own: Mapping[str, str],
    ports: Sequence[int],
    workers: Mapping[str, tuple[str, str]],
    folder: Path,
) -> Fleet:
    """Return the services, not started. `own` are their settings as environment variables, `workers` tier and URL."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT), **own}
    return Fleet(
        valkey=Service("valkey", server_command(valkey, durability), {}, folder),
        intakes=[
            Service(f"intake{port}", [*BITLADDER, "serve", "--port", str(port)], environment, folder) for port in ports
        ],
        workers=[
            Service(name, [*BITLADDER, "worker", "--tier", tier], environment | {"BITLADDER_REDIS__URL": url}, folder)
            for name, (tier, url) in workers.items()
        ],
    )
