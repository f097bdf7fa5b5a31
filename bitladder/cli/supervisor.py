"""Run the processes of a stack together, show what they write, and end them in order, Redis last."""

from __future__ import annotations

import contextlib
import datetime
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping

from honcho.colour import get_colours
from honcho.printer import Message, Printer

from bitladder.signals import ending, held


def in_order(names: Iterable[str]) -> list[list[str]]:
    """Group processes by when they end: workers first, which need the others to finish or requeue their jobs."""
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault({"web": 1, "redis": 2}.get(name, 0), []).append(name)
    return [groups[place] for place in sorted(groups)]


class Supervisor:
    """Ends all processes when a signal comes or one of them ends; a second signal makes them hurry."""

    def __init__(self, commands: Iterable[tuple[str, str]], environment: Mapping[str, str], grace_s: float) -> None:
        self._commands, self._environment, self._grace_s = dict(commands), environment, grace_s
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._events: queue.SimpleQueue[str | signal.Signals] = queue.SimpleQueue()  # a process's end, or a signal
        self._status = 0
        self._asked: set[str] = set()  # processes that were told to end
        self._printer = Printer(width=max(len("system"), *map(len, self._commands)))
        self._printing = threading.Lock()

    def run(self) -> int:
        """Run until all have ended; return the first of their statuses that is not 0."""
        for number in ending():
            signal.signal(number, lambda number, _: self._events.put(signal.Signals(number)))
        colours = get_colours()
        for name, command in self._commands.items():
            self._start(name, command, next(colours))
        self._next(None)
        for group in in_order(self._commands):
            self._end([name for name in group if name in self._running])
        return self._status

    def _start(self, name: str, command: str, colour: str) -> None:
        with held():  # it gets a signal only when it handles one
            process = subprocess.Popen(  # noqa: S603  (our own commands)
                shlex.split(command),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is the supervisor's: it ends them in order
            )
        self._running[name] = process
        self._say(f"{name} started (pid={process.pid})")
        threading.Thread(target=self._follow, args=(name, process, colour), daemon=True).start()

    def _follow(self, name: str, process: subprocess.Popen[bytes], colour: str) -> None:
        assert process.stdout  # noqa: S101  (it is a pipe)
        for line in process.stdout:
            self._print(name, line, colour)
        process.wait()
        self._events.put(name)

    def _next(self, timeout_s: float | None) -> str | signal.Signals | None:
        """Take note of the next event; None when there is none in time."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(event, signal.Signals):
            self._say(f"{event.name} received")
            return event
        status = self._running.pop(event).returncode
        if status == -signal.SIGTERM and event in self._asked:  # a server that had no handler yet: it ended as asked
            status = 0
        self._status = self._status or (status if status >= 0 else 128 - status)
        self._say(f"{event} stopped (rc={status})")
        return event

    def _end(self, group: list[str]) -> None:
        end_s: float | None = time.monotonic() + self._grace_s
        self._send(group, signal.SIGTERM)
        while any(name in self._running for name in group):
            event = self._next(None if end_s is None else max(0.0, end_s - time.monotonic()))
            if isinstance(event, signal.Signals):
                self._send(group, signal.SIGTERM)
            elif event is None:
                self._send(group, signal.SIGKILL)
                end_s = None

    def _send(self, group: list[str], number: signal.Signals) -> None:
        for name in group:
            if name in self._running:
                self._asked.add(name)
                self._running[name].send_signal(number)

    def _say(self, text: str) -> None:
        self._print("system", text.encode(), None)

    def _print(self, name: str, line: bytes, colour: str | None) -> None:
        now = datetime.datetime.now().astimezone()
        with self._printing, contextlib.suppress(OSError):  # the terminal may be gone
            self._printer.write(Message(type="line", data=line, time=now, name=name, colour=colour))
