"""bitladder up and redis: start the processes of a stack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from typing import Annotated

import typer

from bitladder.cli.common_options import Config
from bitladder.cli.processes import PYTHON
from bitladder.cli.supervisor import Supervisor
from bitladder.errors import ConfigError, QueueUnreachableError
from bitladder.queue.checks.rights import INTAKE
from bitladder.queue.checks.server_check import check_server
from bitladder.queue.server.connection import connect
from bitladder.queue.server.durability import check_durability
from bitladder.queue.server.embedded import (
    is_answering,
    is_listening,
    is_of_a_stack,
    lock_data_dir,
    lock_for_stack,
    refuse_used_port,
    server_command,
)
from bitladder.queue.server.outage import check_at_start
from bitladder.settings.load import config_environment, load_settings, process_environment
from bitladder.settings.sections import Settings
from dispatcher.http.listening import bound_sockets

# The metrics ports of `bitladder up`: one per worker, the first free ones from here on.
FIRST_METRICS_PORT = 9101
# A worker drains, requeues what is left, and stops its engine, which takes up to this.
END_S = 15.0
# The server of a stack that was killed may be ending still.
_SERVER_END_S = 3.0


def up(
    config: Config = None,
    engine: Annotated[str | None, typer.Option(help="vllm, remote or echo; over the configuration's.")] = None,
) -> None:
    """Run the whole stack until Ctrl-C: Redis (embedded, unless there is one), the intake, a worker per tier.

    Example: bitladder up --engine echo
    """
    settings = load_settings(config, flags={"worker.engine": engine} if engine else None).settings
    commands = commands_of(settings)
    has_redis = "redis" in dict(commands)
    _refuse_taken(settings, with_redis=has_redis)
    if not has_redis:
        asyncio.run(refuse_wrong_server(settings))
        does = "answers" if settings.redis.sentinels or is_answering(settings.redis) else "does not serve yet"
        typer.echo(f"Redis {does} at {settings.redis.url}: it is used, and not ended with the stack", err=True)
    environment = process_environment() | config_environment(config)
    environment |= {"PYTHONUNBUFFERED": "1", "BITLADDER_WORKER__ENGINE": settings.worker.engine}
    environment["BITLADDER_INTAKE__LAME_DUCK_S"] = "0"  # clients have no other intake to go to
    grace_s = max(settings.worker.drain_grace_s + settings.queue.lease_s, settings.intake.drain_grace_s) + END_S
    raise typer.Exit(Supervisor(commands, environment, grace_s).run())


def _refuse_taken(settings: Settings, *, with_redis: bool) -> None:
    """Say in one line what another process of this machine has, before anything starts."""
    for listener in bound_sockets(settings.intake):
        listener.close()
    if not with_redis and not settings.redis.sentinels and is_of_a_stack(settings.redis):
        raise ConfigError(
            f"redis.url must name a Redis of this stack's own, got {settings.redis.url!r}, the embedded one of another "
            "bitladder up, which ends with it: set redis.url to another port, and redis.data_dir to another folder"
        )
    if with_redis:
        try:
            server_command(settings.redis)
        except ConfigError as error:
            raise ConfigError(f"no Redis answers at redis.url, and none can be started there: {error}") from None
        refuse_used_port(settings.redis)
        lock_for_stack(settings.redis)
        os.close(lock_data_dir(settings.redis, wait_s=_SERVER_END_S))


def commands_of(settings: Settings, *, metrics: bool = True) -> list[tuple[str, str]]:
    """Return name and command line of every process of the stack; workers serve /metrics if `metrics`."""
    bitladder = shlex.join([*PYTHON, "bitladder.cli.main"])
    is_running = settings.redis.sentinels or is_listening(settings.redis)  # Sentinels have a primary of their own
    processes = [] if is_running else [("redis", f"{bitladder} redis")]
    processes.append(("web", f"{bitladder} serve"))
    tiers = [(model, tier) for model, section in settings.models.items() for tier in section.ladder]
    for model, tier in tiers:
        name = f"worker_{tier}" if len(settings.models) == 1 else f"worker_{model}_{tier}"
        flag = f" --metrics-from {FIRST_METRICS_PORT}" if metrics else ""
        processes.append((name, f"{bitladder} worker --model {model} --tier {tier}{flag}"))
    return processes


async def refuse_wrong_server(settings: Settings) -> None:
    """Refuse a wrong Redis before uvicorn starts: its lifespan would turn the one line into a traceback."""
    client = connect(settings.redis)
    try:
        with contextlib.suppress(QueueUnreachableError):  # requests get 503 until it answers
            await check_at_start(lambda: check_server(client, settings.redis, INTAKE))
            await check_durability(client, settings)
    finally:
        await client.aclose()


def redis_server(config: Config = None) -> None:
    """Run the embedded Valkey at the configured URL, as durable as `queue.durability` says.

    Example: bitladder redis
    """
    settings = load_settings(config).settings
    command = server_command(settings.redis, settings.queue.durability)
    refuse_used_port(settings.redis)  # the server would say so behind three other lines
    lock_data_dir(settings.redis)
    os.execv(command[0], command)  # noqa: S606  (the wheel's server)
