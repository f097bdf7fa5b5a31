"""bitladder failover: change the primary on purpose."""

from __future__ import annotations

from typing import Annotated

import typer

from bitladder.cli.common_options import Config
from bitladder.queue.server.failover import Failover
from bitladder.settings.load import load_settings


def failover(
    config: Config = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="Longest time for each step.")] = 60,
) -> None:
    """Put a replica in the primary's place without losing a job: hold writes, wait for the replicas, fail over, go on.

    Submissions are answered 503 meanwhile, which takes some seconds. Needs a user that may do CLIENT PAUSE, CLIENT KILL
    and REPLICAOF (`admin` in compose/redis.acl).

    Example: BITLADDER_REDIS__USERNAME=admin bitladder failover
    """
    new = Failover(load_settings(config).settings.redis, timeout_s, lambda line: typer.echo(line, err=True)).run()
    typer.echo(f"the primary is {new} now")
