"""Become another program that dies with the worker: `python -m workers.engines.launcher COMMAND…`. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    parent = os.getppid()
    # SIGTERM, not SIGKILL: vLLM then ends its own children too. The setting survives execve(2).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the worker died before the setting held
        sys.exit(1)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  (the worker's own command line)


if __name__ == "__main__":
    main()
