"""bitladder worker and calibrate: become another program. This file imports nothing that these would import again."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bitladder.cli.common_options import Config
from bitladder.cli.processes import PYTHON
from bitladder.signals import hold


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
