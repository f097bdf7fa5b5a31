"""Signals that end a process: handled from its first line on. SIGHUP, the end of the terminal, counts like SIGTERM.

A process imports for a second or two. Until it has something to shut down in order, a signal ends it at once with
status 0. This module imports nothing that takes time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

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
