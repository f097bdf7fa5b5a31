"""A stack for one command: embedded Valkey, intake and workers on free ports, with logs in a folder."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx2

from bitladder.cli.processes import in_order, start
from bitladder.cli.serving import commands_of
from bitladder.errors import BitladderError
from bitladder.ids import in_url
from bitladder.settings.load import config_environment, load_settings, process_environment
from bitladder.settings.sections import Settings

# After SIGTERM: the drain of a worker and the end of its engine.
_STOP_S = 45
_POLL_INTERVAL_S = 0.2


class _StackError(BitladderError):
    """A process of the stack ended, or did not come up in time."""


class PrivateStack:
    """The running processes of one stack."""

    def __init__(self, config: str | None, flags: Mapping[str, object], folder: Path) -> None:
        overrides = {
            "redis.url": f"redis://127.0.0.1:{free_port()}/0",
            "redis.data_dir": str(folder / "valkey"),
            "files.store": str(folder / "files"),
            "intake.host": "127.0.0.1",
            "auth.required": False,  # on loopback for this process alone, whose clients have no key
            "intake.cors_origins": [],  # which would need keys
            "intake.port": free_port(),
            "intake.lame_duck_s": 0,  # clients have no other intake to go to
        }
        self.settings: Settings = load_settings(config, flags={**flags, **overrides}).settings
        self.url = f"http://127.0.0.1:{self.settings.intake.port}"
        self.folder = folder
        self._environment = process_environment() | config_environment(config) | {"PYTHONUNBUFFERED": "1"}
        for key, value in {**flags, **overrides}.items():
            self._environment["BITLADDER_" + key.upper().replace(".", "__")] = str(value)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start every process; returns at once."""
        for name, command in commands_of(self.settings, metrics=False):
            with (self.folder / f"{in_url(name)}.log").open("wb") as log:
                self._processes[name] = start(command, self._environment, log)

    def wait_until_live(self, timeout_s: float, on_poll: Callable[[Mapping[str, int]], None]) -> None:
        """Wait until every tier has a live worker; `on_poll` gets how many each has.

        Raises:
            _StackError: a process ended, or the time has run out; the message ends with the last lines of its log.

        """
        end = time.monotonic() + timeout_s
        while True:
            live = self._live()
            on_poll(live)
            if live and all(live.values()):
                return
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise _StackError(f"{name} ended with status {process.returncode}:\n{self.tail(name)}")
            if time.monotonic() > end:
                missing = [f"worker_{tier}" for tier, count in live.items() if not count] or ["web"]
                raise _StackError(f"not live after {timeout_s:g} s: {', '.join(missing)}\n{self.tail(missing[0])}")
            time.sleep(_POLL_INTERVAL_S)

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a process's log."""
        text = (self.folder / f"{in_url(name)}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the processes, Redis last, so that the workers can requeue or finish their jobs."""
        for group in in_order(self._processes):
            started = [self._processes[name] for name in group]
            for process in started:
                process.terminate()
            for process in started:
                _end(process)

    def _live(self) -> dict[str, int]:
        with contextlib.suppress(httpx2.HTTPError, ValueError, KeyError):
            answer = httpx2.get(f"{self.url}/readyz", timeout=2).json()
            return {tier: count for tiers in answer["live_workers"].values() for tier, count in tiers.items()}
        return {}


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def private_stack(config: str | None, flags: Mapping[str, object]) -> Iterator[PrivateStack]:
    """Run a stack while the block runs."""
    with tempfile.TemporaryDirectory(prefix="bitladder-") as folder:
        stack = PrivateStack(config, flags, Path(folder))
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
