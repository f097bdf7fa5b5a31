"""The processes under fire, and who starts them again when they end, as an init system would."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatcher.embedded import server_command
from dispatcher.sections import RedisSettings
from tests.conftest import ROOT

# How long a process may take to end after SIGTERM.
STOP_S = 30
BITLADDER = (sys.executable, "-m", "dispatcher.cli.main")


class Service:
    """One process that is started again whenever it ends, with its log in a file."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name, self._command, self._environment = name, command, dict(environment)
        self.log = folder / f"{name}.log"
        self.starts = 0
        self.odd_ends: list[str] = []  # without a signal of ours, or not as they should
        self.is_held_down = False
        self._process: subprocess.Popen[bytes] | None = None
        self._signals: set[int] = set()
        self._started_s = 0.0

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started_s

    def look(self) -> None:
        """Start the process if it does not run; note how it ended."""
        if self._process is not None and self._process.poll() is not None:
            self._note_end(self._process.returncode)
            self._process = None
        if self._process is None and not self.is_held_down:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            self._signals, self._started_s, self.starts = set(), time.monotonic(), self.starts + 1

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signals.add(number)
            self._process.send_signal(number)

    def begin_stop(self) -> None:
        """Ask it to end for good."""
        self.is_held_down = True
        self.signal(signal.SIGCONT)
        if signal.SIGTERM not in self._signals:  # a second one is another wish
            self.signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it for good."""
        self.begin_stop()
        if self._process is not None:
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.odd_ends.append(f"{self.name} did not end within {STOP_S} s of SIGTERM")
                self._process.kill()
                self._process.wait()
        self.look()

    def _note_end(self, status: int) -> None:
        fair = {-signal.SIGKILL} if signal.SIGKILL in self._signals else set()
        if signal.SIGTERM in self._signals:
            fair |= {0, -signal.SIGTERM}  # uvicorn ends by the signal that it was sent
        if status not in fair:
            self.odd_ends.append(f"{self.name} ended with status {status} after signals {sorted(self._signals)}")


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
            text = service.log.read_text(encoding="utf-8", errors="replace") if service.log.exists() else ""
            if (at := text.find("Traceback")) >= 0:
                yield f"{service.name} has a traceback in its log: {text[max(0, at - 200) : at + 2000]}"


def make_fleet(
    valkey: RedisSettings, own: Mapping[str, str], ports: Sequence[int], tiers: Sequence[str], folder: Path
) -> Fleet:
    """Return the services, not started; `own` are their settings as environment variables."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT), **own}
    intakes = [
        Service(f"intake{port}", [*BITLADDER, "serve", "--port", str(port)], environment, folder) for port in ports
    ]
    workers = [
        Service(f"{tier}-{number}", [*BITLADDER, "worker", "--tier", tier], environment, folder)
        for number, tier in enumerate(tiers)
    ]
    return Fleet(
        valkey=Service("valkey", server_command(valkey, "fsync"), {}, folder), intakes=intakes, workers=workers
    )
