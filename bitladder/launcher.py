"""Run a command that ends with the process that started it: `launcher.py PARENT_PID SIGNAL COMMAND…`.

The parent passes its process id: the parent that this process sees may be another one by now. Run by its path, with
the standard library alone (see `launched`). Linux only; elsewhere the command simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def launched(command: list[str], on_death: signal.Signals) -> list[str]:
    """Return the command line of `command` as a child that gets this signal when the calling thread ends."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), on_death.name, *command]


def main() -> None:
    parent, number = int(sys.argv[1]), signal.Signals[sys.argv[2]]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)  # the setting survives execve(2)
    if os.getppid() != parent:  # it died before the setting took effect
        sys.exit(1)
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606  (the parent's own command line)


if __name__ == "__main__":
    main()
