"""bitladder queues, config show and version: commands that only read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bitladder.cli.common_options import AsJson, Config
from bitladder.contract import QueueName
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.queue_list import ModelQueues, QueueList, TierQueues, read_queues
from bitladder.queue.server.connection import connect
from bitladder.settings.hidden import hidden
from bitladder.settings.load import leaves, load_settings
from bitladder.settings.sections import Settings


def queues(
    config: Config = None,
    watch: Annotated[bool, typer.Option(help="Repeat every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show depth, oldest job, jobs in flight and live workers of every tier, straight from Redis.

    Example: bitladder queues --watch
    """
    settings = load_settings(config).settings
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(_read(settings)), indent=2))
        return
    if not watch:
        Console().print(_shown(_read(settings)))
        return
    with Live(_shown(_read(settings)), auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(_shown(_read(settings)), refresh=True)


def config_show(config: Config = None, as_json: AsJson = False) -> None:
    """Show every setting, its value and where it came from.

    Example: bitladder config show
    """
    loaded = load_settings(config)
    rows = [
        {"key": key, "value": hidden(value), "source": loaded.sources.get(key, "default")}
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


def _read(settings: Settings) -> QueueList:
    async def read() -> QueueList:
        client = connect(settings.redis)
        try:
            return await read_queues(JobQueue(client, settings))
        finally:
            await client.aclose()

    return asyncio.run(read())


def _shown(queues: QueueList) -> Group:
    parts: list[RenderableType] = [_table(queues.data)]
    if queues.suspended:
        parts.append("suspended: no job begins until `rq resume`")
    if queues.unknown_total:
        parts.append(f"{queues.unknown_total} queues that no tier serves, the deepest first:")
        parts += [
            Text(f"  {unknown.queue}: {unknown.depth} jobs, {unknown.workers} workers of RQ")
            for unknown in queues.unknown
        ]
    return Group(*parts)


def _table(models: list[ModelQueues]) -> Table:
    table = Table("model", "tier", "lane", "depth", "oldest", "in flight", "workers")
    for model in models:
        for tier in model.tiers:
            for row in _rows(tier):
                table.add_row(model.model, tier.tier, *row)
    return table


def _rows(tier: TierQueues) -> Iterator[Sequence[str]]:
    """Yield a row for each queue; one with a ceiling has none while it is empty."""
    for index, queue in enumerate(tier.queues):
        ceiling = QueueName.parse(queue.queue).ceiling
        if queue.depth or queue.in_flight or queue.problem or not ceiling:
            yield (
                f"{queue.lane} max-{ceiling}" if ceiling else queue.lane,
                "no list" if queue.problem else str(queue.depth),
                "" if queue.oldest_age_s is None else f"{queue.oldest_age_s:.1f} s",
                str(queue.in_flight),
                str(tier.live_workers) if index == 0 else "",
            )
