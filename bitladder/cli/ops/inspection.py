"""bitladder queues, config show and version: commands that only read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn

import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.asking import Answer
from bitladder.cli.ops.operations import operations
from bitladder.cli.ops.steering.steer_commands import pause_words
from bitladder.cli.output import ExitCode
from bitladder.queue_name import QueueName
from calibration.terminal.tabular import Row, plain, table

config = typer.Typer(help="Look at the configuration.", no_args_is_help=True, rich_markup_mode=None)
config.callback()(lambda: None)  # without it typer would take a group of one command for that command
_COLUMNS = ("model", "tier", "lane", "depth", "oldest s", "in flight", "workers", "paused")


def queues(
    watch: Annotated[bool, typer.Option(help="Repeat every second until Ctrl-C.")] = False,
    check: Annotated[
        bool, typer.Option(help="Exit status 1 where something is wrong, such as no live worker.")
    ] = False,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show depth, oldest job, jobs in flight and live workers of every tier, from an intake or straight from Redis.

    Example: bitladder queues --watch
    """
    side = operations(url, api_key, config)
    if watch:
        _watch(side.queues)
    answer = side.queues()
    notes = list(_notes(answer))
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        typer.echo(_table(answer))
        for note in notes:
            typer.secho(note, err=True, fg="red")
    raise typer.Exit(ExitCode.FAILED if check and notes else ExitCode.DONE)


@config.command("show")
def config_show(config: Config = None, as_json: AsJson = False) -> None:
    """Show every setting, its value and where it came from, the live settings in Redis included where it answers.

    Example: bitladder config show
    """
    from bitladder.cli.ops.asking import in_force
    from bitladder.settings.explain import leaves
    from bitladder.settings.hidden import hidden
    from bitladder.settings.load import load_settings

    loaded = in_force(load_settings(config, with_keys=True), says_why=True)
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
    from bitladder import __version__

    typer.echo(f"bitladder {__version__}")


def _watch(read: Callable[[], Answer]) -> NoReturn:
    """Show the queues every second, on a terminal in one place."""
    from rich.live import Live
    from rich.text import Text

    def page() -> str:
        answer = read()
        return "\n".join([_table(answer), *(typer.style(note, fg="red") for note in _notes(answer))])

    if not sys.stdout.isatty():
        while True:
            typer.echo(_table(read()))
            time.sleep(1)
    with Live(Text.from_ansi(page()), auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(Text.from_ansi(page()), refresh=True)


def _table(answer: Answer) -> str:
    rows = [row for model in answer["data"] for tier in model["tiers"] for row in _rows(model["model"], tier)]
    return table(_COLUMNS, rows, red=[index for index, row in enumerate(rows) if not row[-2] or row[-1]])


def _rows(model: str, tier: dict[str, Any]) -> Iterator[Row]:
    """Yield a row for each queue; one that not every tier may serve has none while it is empty."""
    for queue in tier["queues"]:
        limit = QueueName.parse(queue["queue"]).limit
        if queue["depth"] or queue["in_flight"] or queue["problem"] or not limit:
            lane = f"{queue['lane']} {limit}" if limit else queue["lane"]
            depth = "no list" if queue["problem"] else queue["depth"]
            oldest = "" if queue["oldest_age_s"] is None else f"{queue['oldest_age_s']:.1f}"
            paused = (queue.get("paused") or {}).get("scope", "")  # none of an earlier version's intake
            yield model, tier["tier"], lane, depth, oldest, queue["in_flight"], tier["live_workers"], paused


def _notes(answer: Answer) -> Iterator[str]:
    """Yield what an operator should look at, in words."""
    pauses = answer.get("pauses", [])
    if answer["suspended"] and not any(pause["by"] != "rq suspend" for pause in pauses if pause["scope"] == "all"):
        yield "suspended: no job begins until `rq resume`"
    yield from (f"paused: {pause_words(pause)}" for pause in pauses if pause["by"] != "rq suspend")
    for model in answer["data"]:
        for place, tier in enumerate(model["tiers"]):
            higher = [above["tier"] for above in model["tiers"][place + 1 :] if above["live_workers"]]
            if not tier["live_workers"]:
                effect = (
                    f"{higher[0]} serves its jobs, except those with a lower max_tier" if higher else "its jobs wait"
                )
                yield f"{model['model']} {tier['tier']}: no live worker; {effect}"
            elif tier.get("shifted"):  # not from an intake of an earlier version
                serving = f"{higher[0] if higher else 'no tier'} serves those that may go up"
                yield f"{model['model']} {tier['tier']}: too many of its jobs break; {serving}"
            yield from (f"{queue['queue']}: {queue['problem']}" for queue in tier["queues"] if queue["problem"])
    if answer["unknown_total"]:
        yield f"{answer['unknown_total']} queues that no tier serves, the deepest first:"
    for unknown in answer["unknown"]:
        yield plain(f"  {unknown['queue']}: {unknown['depth']} jobs, {unknown['workers']} workers of RQ")
