"""bitladder queues, config show and version: look, change nothing."""

from __future__ import annotations

import asyncio
import json
import time
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bitladder.contract import QueueName
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.load import leaves, load_settings
from bitladder.settings.sections import Settings
from dispatcher.ops.ops import look_at_queues

Config = Annotated[str | None, typer.Option("--config", "-c", help="Configuration file (default: ./bitladder.toml).")]


def queues(
    config: Config = None,
    watch: Annotated[bool, typer.Option(help="Look again every second until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show depth, oldest job, jobs in flight and live workers of every tier, straight from Redis.

    Example: bitladder queues --watch
    """
    settings = load_settings(config).settings
    if as_json:
        typer.echo(json.dumps(asyncio.run(_look(settings)), indent=2))
        return
    if not watch:
        Console().print(_shown(asyncio.run(_look(settings))))
        return
    with Live(_shown(asyncio.run(_look(settings))), auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(_shown(asyncio.run(_look(settings))), refresh=True)


def config_show(
    config: Config = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """Show every setting, its value and where it came from.

    Example: bitladder config show
    """
    loaded = load_settings(config)
    rows = [
        {"key": key, "value": value, "source": loaded.sources.get(key, "default")}
        for key, value in leaves(loaded.settings.model_dump(mode="json"))
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['key']} = {json.dumps(row['value'])}  # {row['source']}")


def version() -> None:
    """Show the version."""
    typer.echo(f"bitladder {installed('bitladder')}")


async def _look(settings: Settings) -> dict[str, Any]:
    client = connect(settings.redis)
    try:
        return await look_at_queues(JobQueue(client, settings))
    finally:
        await client.aclose()


def _shown(looked: dict[str, Any]) -> Group:
    parts: list[RenderableType] = [_table(looked["data"])]
    if looked["suspended"]:
        parts.append("suspended: no job begins until `rq resume`")
    if looked["unknown_total"]:
        parts.append(f"{looked['unknown_total']} queues that no tier serves, the deepest first:")
        parts += [
            Text(f"  {one['queue']}: {one['depth']} jobs, {one['workers']} workers of RQ") for one in looked["unknown"]
        ]
    return Group(*parts)


def _table(models: list[dict[str, Any]]) -> Table:
    table = Table("model", "tier", "lane", "depth", "oldest", "in flight", "workers")
    for model in models:
        for tier in model["tiers"]:
            for index, queue in enumerate(tier["queues"]):
                age = queue["oldest_age_s"]
                ceiling = QueueName.parse(queue["queue"]).ceiling
                if queue["depth"] or queue["in_flight"] or queue["problem"] or not ceiling:
                    table.add_row(
                        model["model"],
                        tier["tier"],
                        f"{queue['lane']} max-{ceiling}" if ceiling else queue["lane"],
                        "no list" if queue["problem"] else str(queue["depth"]),
                        "" if age is None else f"{age:.1f} s",
                        str(queue["in_flight"]),
                        str(tier["live_workers"]) if index == 0 else "",
                    )
    return table
