"""bitladder serve: run one intake."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

import typer

from bitladder.cli.common_options import Config
from bitladder.cli.serving import refuse_wrong_server
from bitladder.logs.setup import configure_logs
from bitladder.settings.live import ReleaseWatch
from bitladder.settings.load import load_settings
from dispatcher.http.closing import Closing
from dispatcher.http.listening import bound_sockets
from dispatcher.http.server import IntakeServer
from dispatcher.several.apps import open_intake


def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to bind; default: the configuration's, loopback.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind.")] = None,
) -> None:
    """Run one intake.

    Example: bitladder serve --port 8001
    """
    flags = {key: value for key, value in (("intake.host", host), ("intake.port", port)) if value is not None}
    load = partial(load_settings, config, flags=flags, with_keys=True)
    watch = ReleaseWatch(load)
    settings = watch.settings
    configure_logs(settings.log.level)
    closing = Closing()
    app = open_intake(watch, load, closing)
    sockets = bound_sockets(settings.intake)
    for part in settings.at_each_redis:
        asyncio.run(refuse_wrong_server(part))
    IntakeServer(app, settings.intake, closing).run(sockets)
