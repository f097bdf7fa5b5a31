"""Run a command that ends with the worker: `python -m workers.engines.launcher WORKER_PID COMMAND…`.

Linux only. The worker passes its process id: the parent that this process sees may be another one by now.
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
    if os.getppid() != worker:  # it died before the setting took effect
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (the worker's own command line)


if __name__ == "__main__":
    main()
