"""bitladder doctor and failover: look at Redis before anything is started, and change its primary on purpose."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from bitladder.cli.common_options import Config
from bitladder.errors import ConfigError
from bitladder.logs.setup import configure_logs
from bitladder.queue.checks.rights import INTAKE, PRODUCER, WORKER
from bitladder.queue.checks.server_check import check_server
from bitladder.queue.server.connection import connect
from bitladder.queue.server.durability import check_durability
from bitladder.queue.server.failover import Failover
from bitladder.settings.load import load_settings
from bitladder.settings.paths import in_cache
from bitladder.settings.sections import Settings
from workers.engines.published import published_problem


class Role(StrEnum):
    """What a user of Redis is for."""

    INTAKE = "intake"
    WORKER = "worker"
    PRODUCER = "producer"


_RIGHTS = {Role.INTAKE: INTAKE, Role.WORKER: WORKER, Role.PRODUCER: PRODUCER}


def doctor(
    config: Config = None,
    role: Annotated[Role, typer.Option(help="Whose rights in Redis to look at.")] = Role.INTAKE,
) -> None:
    """Check the configuration and Redis as a process does at its start: version, mode, policy, what the user may do,
    whether a script may write, and whether the server keeps what `queue.durability` promises. For the role worker also
    that the published checkpoints of this machine are what was published.

    Exit status: 0: all is well; 5: Redis does not answer, or refuses to write now; 2: something must be set.

    Example: bitladder doctor --role worker
    """  # noqa: D205
    configure_logs()  # warnings
    settings = load_settings(config).settings
    typer.echo("configuration: ok")
    asyncio.run(_ask(settings, role))
    if role is Role.WORKER and settings.worker.engine == "vllm":
        _check_checkpoints(settings)


def _check_checkpoints(settings: Settings) -> None:
    """Compare the digests of what is published; the first time, and after a change, this reads every byte.

    Raises:
        ConfigError: one is not what was published.

    """
    for model, model_settings in settings.models.items():
        for tier in model_settings.tiers:
            if tier.published is None:
                continue
            if not in_cache(tier.checkpoint, settings.vllm.cache_dir).is_dir():
                typer.echo(f"checkpoint of {model} {tier.name}: not on this machine")
                continue
            if problem := published_problem(tier, settings.vllm):
                raise ConfigError(f"checkpoint of {model} {tier.name}: {problem}")
            typer.echo(f"checkpoint of {model} {tier.name}: ok, that of release {tier.published.version}")


async def _ask(settings: Settings, role: Role) -> None:
    client = connect(settings.redis)
    try:
        await check_server(client, settings.redis, _RIGHTS[role])
        typer.echo(f"redis: ok, also the rights of the role {role}")
        await check_durability(client, settings)
        typer.echo(f"durability: ok, {settings.queue.durability}")
    finally:
        await client.aclose()


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
