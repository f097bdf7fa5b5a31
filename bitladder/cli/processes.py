"""The processes of a stack: their command lines, how one is started, and in which order they end."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import IO

from bitladder.signals import ending_with_parent, held

# -P: the current folder is not a place for imports; it may hold any folder `workers`.
PYTHON = (sys.executable, "-P", "-m")


def start(command: str, environment: Mapping[str, str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start one process of a stack, which dies with this one, and with this one alone.

    In a session of its own: Ctrl-C is for the process that supervises it, which ends all in order.
    """
    with held():  # it gets a signal only when it handles one
        return subprocess.Popen(  # noqa: S603  (our own commands)
            ending_with_parent(shlex.split(command), signal.SIGKILL),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def in_order(names: Iterable[str]) -> list[list[str]]:
    """Group processes by when they end.

    First the intake, whose clients the workers still answer; then the workers, which need Redis to hand in or requeue
    their jobs.
    """
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault({"web": 0, "redis": 2}.get(name, 1), []).append(name)
    return [groups[place] for place in sorted(groups)]
