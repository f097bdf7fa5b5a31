"""Run the processes of a stack together: show what they write, start again what dies, and end them in order."""

from __future__ import annotations

import contextlib
import datetime
import math
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from honcho.colour import get_colours
from honcho.printer import Message, Printer

from bitladder.cli.output import ExitCode
from bitladder.cli.processes import in_order, start
from bitladder.process.signals import ending

# Before a process is started again: short at first, longer while it keeps dying, which must not keep the machine busy.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
# A process that has run for so long counts as running: the next pause is the first again.
_SETTLED_S = 30.0
# A process that is to hurry is asked again and again: signals that come together count as one, and a worker may have
# claimed a job just then.
_ASK_AGAIN_S = 1.0
# The last lines of a process are shown before its end is said; a child of its own may hold the pipe open.
_LAST_LINES_S = 1.0
# A longer line is shown in parts.
_MAX_LINE = 65_536
# Nothing works without these.
_NEEDED = {"web", "redis"}


@dataclass(slots=True, eq=False)
class _Child:
    """One process of the stack, whichever number it runs under."""

    name: str
    command: str
    colour: str
    process: subprocess.Popen[bytes] | None = None  # while it runs
    started_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    restart_s: float | None = None  # when it is started again
    is_asked: bool = False  # to end

    @property
    def is_up(self) -> bool:
        """Whether it runs, or will be started again."""
        return self.process is not None or self.restart_s is not None


class Supervisor:
    """Keeps processes running until a signal comes, then ends them in order; a second signal makes them hurry."""

    def __init__(self, commands: Iterable[tuple[str, str]], environment: Mapping[str, str], grace_s: float) -> None:
        self._children = {
            name: _Child(name, command, colour)
            for (name, command), colour in zip(commands, get_colours(), strict=False)
        }
        self._environment, self._grace_s = environment, grace_s
        self._events: queue.SimpleQueue[_Child | signal.Signals] = queue.SimpleQueue()  # a process's end, or a signal
        self._status = 0
        self._signals = 0
        self._printer = Printer(width=max(len("system"), *map(len, self._children)))
        self._printing = threading.Lock()

    def run(self) -> int:
        """Run until a signal comes, or nothing of use is left; return the first status that is not 0 of those ended."""
        for number in ending():
            signal.signal(number, lambda number, _: self._events.put(signal.Signals(number)))
        for child in self._children.values():
            self._start(child)
        while not self._signals and self._is_of_use():
            self._step()
        for group in in_order(self._children):
            self._end([self._children[name] for name in group])
        return self._status

    def _is_of_use(self) -> bool:
        down = {name for name, child in self._children.items() if not child.is_up}
        if missing := sorted(_NEEDED & down or ({"a worker"} if self._children.keys() - _NEEDED <= down else set())):
            self._say(f"there is no stack without {missing[0]}: the others end")
        return not missing

    def _start(self, child: _Child) -> None:
        child.process = process = start(child.command, self._environment, subprocess.PIPE)
        child.started_s, child.restart_s = time.monotonic(), None
        self._say(f"{child.name} started (pid={process.pid})")
        reader = threading.Thread(target=self._show, args=(child, process), daemon=True)
        reader.start()
        threading.Thread(target=self._await, args=(child, process, reader), daemon=True).start()

    def _show(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout  # noqa: S101  (it is a pipe)
        while line := process.stdout.readline(_MAX_LINE):
            self._print(child.name, line, child.colour)

    def _await(self, child: _Child, process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
        process.wait()
        reader.join(_LAST_LINES_S)
        self._events.put(child)

    def _step(self, until_s: float = math.inf) -> None:
        """Wait for the next event or restart, and do what it asks for."""
        next_s = min(until_s, *(child.restart_s or math.inf for child in self._children.values()))
        timeout_s = None if next_s == math.inf else max(0.0, next_s - time.monotonic())
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=timeout_s)
            self._hear(event) if isinstance(event, signal.Signals) else self._note_end(event)
        for child in self._children.values():
            if child.restart_s and child.restart_s <= time.monotonic():
                self._start(child)

    def _hear(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals == 1:
            order = f"first the intake ends, then the workers (up to {self._grace_s:g} s each), then Redis"
            self._say(f"{number.name}: {order}; once more, and what runs is cut short")
        elif self._signals == 2:
            self._say(f"{number.name} again: what runs is cut short, and its jobs are requeued; once more kills")

    def _note_end(self, child: _Child) -> None:
        assert child.process  # noqa: S101  (its end was waited for)
        status, child.process = child.process.returncode, None
        how = f"{child.name} {_how_it_ended(status)}"
        if child.is_asked:
            if status != -signal.SIGTERM:  # a server that had no handler yet: it ended as asked
                self._status = self._status or (status if status >= 0 else 128 - status)
            self._say(how)
        elif status == ExitCode.WRONG_USE:
            self._status = self._status or status
            self._say(f"{how}: its last line says what it lacks; it is not started again")
        else:
            if time.monotonic() - child.started_s > _SETTLED_S:
                child.pause_s = _FIRST_PAUSE_S
            self._say(f"{how}; it is started again in {child.pause_s:g} s")
            child.restart_s = time.monotonic() + child.pause_s
            child.pause_s = min(_MAX_PAUSE_S, 2 * child.pause_s)

    def _end(self, group: list[_Child]) -> None:
        for child in group:
            child.is_asked, child.restart_s = True, None
        self._send(group, signal.SIGTERM)
        start_s, again_s, is_killed = time.monotonic(), time.monotonic() + _ASK_AGAIN_S, False
        while running := [child for child in group if child.process]:
            limit_s = math.inf if is_killed else start_s + (self._grace_s if self._signals < 3 else _ASK_AGAIN_S)
            self._step(min(limit_s, again_s) if self._signals > 1 else limit_s)
            if time.monotonic() >= limit_s:
                is_killed = True
                names = ", ".join(child.name for child in running)
                self._say(f"killed, because not ended in {limit_s - start_s:g} s: {names}")
                self._send(running, signal.SIGKILL)
            elif self._signals > 1 and time.monotonic() >= again_s:
                again_s += _ASK_AGAIN_S
                self._send(running, signal.SIGTERM)

    def _send(self, children: list[_Child], number: signal.Signals) -> None:
        for child in children:
            if child.process:
                child.process.send_signal(number)

    def _say(self, text: str) -> None:
        self._print("system", text.encode(), None)

    def _print(self, name: str, line: bytes, colour: str | None) -> None:
        now = datetime.datetime.now().astimezone()
        with self._printing, contextlib.suppress(OSError, ValueError):  # it may be gone, or lack the characters
            self._printer.write(Message(type="line", data=line, time=now, name=name, colour=colour))


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"was ended by signal {-status}"
