"""Become another program that dies with the worker: `python -m workers.engines.launcher WORKER_PID COMMAND…`.

Linux only. The worker says its process id: asked for here, it might be that of whoever adopted this process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    worker = int(sys.argv[1])
    # SIGTERM, not SIGKILL: vLLM then ends its own children too. The setting survives execve(2).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != worker:  # it died before the setting held
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (the worker's own command line)


if __name__ == "__main__":
    main()
