"""bitladder top: as a screen where there is a terminal, else as a table."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from importlib.util import find_spec
from typing import Annotated

import msgspec
import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.operations import operations
from bitladder.cli.top.samples import Samples, is_lasting, samples_of
from bitladder.cli.top.tier_rows import COLUMNS, Sort, check_model, rows_of, summary
from bitladder.errors import BitladderError
from bitladder.overview.shape import Overview
from calibration.terminal.tabular import plain, table

_HINT = "bitladder: this is a table; for a screen with keys: pip install 'bitladder[top]'"


def top(
    watch: Annotated[
        bool, typer.Option(help="Without a terminal, or with --json: a sample every second until Ctrl-C.")
    ] = False,
    sort: Annotated[Sort, typer.Option(help="What to sort by; but for the ladder, the largest first.")] = Sort.LADDER,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show all tiers, their queues, workers and costs, and what to look at, live: from an intake, or from Redis.

    Example: bitladder top --url http://127.0.0.1:8000
    Example: bitladder top --model smollm2 --sort depth | cat
    """
    asked, samples = samples_of(url, api_key, config)
    is_screen = not as_json and _is_terminal()
    if is_screen and find_spec("textual"):
        from bitladder.cli.top.top_screen import TopScreen, run_screen

        side = operations(url, api_key, config)
        run_screen(TopScreen(asked, samples, sort, model, side.order))
        return
    if is_screen:
        typer.echo(_HINT, err=True)
    asyncio.run(_print(samples, watch=watch, as_json=as_json, sort=sort, model=model))


def _is_terminal() -> bool:
    """Return whether a person sits at a terminal that can move its cursor."""
    from rich.console import Console

    return sys.stdin.isatty() and sys.stdout.isatty() and not Console().is_dumb_terminal


async def _print(samples: Samples, *, watch: bool, as_json: bool, sort: Sort, model: str | None) -> None:
    """Print one sample, or one after the other.

    Raises:
        BitladderError: there is none, or no later try can bring one; while it watches, others are named on stderr.

    """
    async with contextlib.aclosing(samples()) as items:
        async for item in items:
            if isinstance(item, BitladderError):
                if not watch or is_lasting(item):
                    raise item
                typer.echo(f"bitladder: {item}", err=True)
                continue
            check_model(item, model)
            if as_json:
                typer.echo(msgspec.json.encode(item).decode())
            else:
                _print_table(item, sort, model)
            if not watch:
                return


def _print_table(overview: Overview, sort: Sort, model: str | None) -> None:
    """Print a sample as a table, and as remarks the sums and what to look at."""
    rows = rows_of(overview, sort, model)
    red = [place for place, row in enumerate(rows) if row.is_wrong]
    typer.echo(table(COLUMNS, [row.cells for row in rows], red=red))
    for line in summary(overview):
        typer.echo(line, err=True)
    for note in overview.notes:
        typer.secho(plain(f"{note.severity}: {note.text}"), err=True, fg="red")
