"""Signals that end a process: handled from its first line on. SIGHUP, the end of the terminal, counts like SIGTERM.

A process imports for a second or two. Until it has something to shut down in order, a signal ends it at once with
status 0. This module imports nothing that takes time.

As a program, `signals.py PARENT_PID SIGNAL COMMAND…`, it runs a command that gets a signal when its parent ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1  # prctl(2)
_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def ending() -> list[signal.Signals]:
    """Return the signals that end this process: not one that it was started to ignore, as nohup(1) does SIGHUP."""
    return [number for number in _ALL if signal.getsignal(number) is not signal.SIG_IGN]


def end_at_once() -> None:
    """Let a signal end this process with status 0 until other handlers are set. SIGHUP is passed on as SIGTERM."""
    handlers = {signal.SIGTERM: _end, signal.SIGINT: _end, signal.SIGHUP: _as_sigterm}
    for number in ending():
        signal.signal(number, handlers[number])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)  # the parent process may have held them


def hold() -> None:
    """Hold signals back, so that none is lost while this process becomes another one, which calls `end_at_once`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold signals back while the block runs, and in processes that it starts until they are ready for signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, frame: object) -> None:
    del number, frame
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may have been interrupted while it wrote
            stream.flush()
    os._exit(0)


def _as_sigterm(number: int, frame: object) -> None:
    del number, frame
    signal.raise_signal(signal.SIGTERM)


def ending_with_parent(command: list[str], number: signal.Signals) -> list[str]:
    """Return the command line of a child that gets this signal when the thread that starts it ends.

    Linux only; elsewhere the command simply runs. It takes the parent's process id along: the parent that it sees may
    be another one by then.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), number.name, *command]


def _become_the_command() -> None:
    parent, number = int(sys.argv[1]), signal.Signals[sys.argv[2]]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)  # the setting survives execve(2)
    if os.getppid() != parent:  # it died before the setting took effect
        sys.exit(1)
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606  (the parent's own command line)


if __name__ == "__main__":
    _become_the_command()
