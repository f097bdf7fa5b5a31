"""The processes of a stack: their command lines, how one is started, and in which order they end.

The commands that become one of them are here as well: this file imports nothing that takes long.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Annotated

import typer

from bitladder.cli.common_options import Config
from bitladder.process.signals import ending_with_parent, held, hold

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


def worker(
    tier: Annotated[str, typer.Option(help="The tier to serve.")],
    config: Config = None,
    model: Annotated[str | None, typer.Option(help="The model, where there are several.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve /metrics on this port.")] = None,
    metrics_from: Annotated[int | None, typer.Option(help="Serve it on the first free port from this one on.")] = None,
) -> None:
    """Run one worker of one tier.

    Example: bitladder worker --tier int4
    """
    # exec: this process becomes the worker, and what supervises it keeps one process.
    command = [*PYTHON, "workers", "--tier", tier]
    flags = {"--config": config, "--model": model, "--metrics-port": metrics_port, "--metrics-from": metrics_from}
    for flag, value in flags.items():
        command += [] if value is None else [flag, str(value)]
    hold()
    os.execv(command[0], command)  # noqa: S606  (our own module)


def calibrate(context: typer.Context) -> None:
    """Go from real traffic to checkpoints that are proven good before they serve.

    Example: bitladder calibrate sample --help
    """
    # As with the worker. Calibration reads its own arguments.
    command = [*PYTHON, "calibration", *context.args]
    os.execv(command[0], command)  # noqa: S606  (our own module)
