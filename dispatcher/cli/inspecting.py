"""bitladder queues, config show and version: look, change nothing."""

from __future__ import annotations

import asyncio
import json
import time
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dispatcher.intake.ops import describe_queues
from dispatcher.queue.connection import connect
from dispatcher.queue.job_queue import JobQueue
from dispatcher.sections import Settings
from dispatcher.settings import leaves, load_settings

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
        Console().print(_table(asyncio.run(_look(settings))))
        return
    with Live(_table(asyncio.run(_look(settings))), auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(_table(asyncio.run(_look(settings))), refresh=True)


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


async def _look(settings: Settings) -> list[dict[str, Any]]:
    client = connect(settings.redis)
    try:
        queue = JobQueue(client, settings)
        return [describe_queues(name, await queue.depths(name)) for name in settings.models]
    finally:
        await client.aclose()


def _table(models: list[dict[str, Any]]) -> Table:
    table = Table("model", "tier", "lane", "depth", "oldest", "in flight", "workers")
    for model in models:
        for tier in model["tiers"]:
            for index, queue in enumerate(tier["queues"]):
                age = queue["oldest_age_s"]
                name = queue["lane"] + ("" if queue["queue"].count(":") == 2 else " " + queue["queue"].split(":")[3])
                if queue["depth"] or queue["in_flight"] or ":max-" not in queue["queue"]:
                    table.add_row(
                        model["model"],
                        tier["tier"],
                        name,
                        str(queue["depth"]),
                        "" if age is None else f"{age:.1f} s",
                        str(queue["in_flight"]),
                        str(tier["live_workers"]) if index == 0 else "",
                    )
    return table
