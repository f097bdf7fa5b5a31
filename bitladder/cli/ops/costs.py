"""bitladder costs and bitladder ladder: what requests have cost, and what each tier brings for that."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.operations import operations
from calibration.terminal.tabular import table


class Grouping(StrEnum):
    """What a row of the table stands for."""

    TENANT = "tenant"
    TIER = "tier"
    DAY = "day"
    MODEL = "model"


_NAMES = {
    Grouping.TENANT: ("tenant",),
    Grouping.TIER: ("model", "tier"),
    Grouping.DAY: ("day",),
    Grouping.MODEL: ("model",),
}
_COUNTS = ("requests", "tokens")
_MONEY = ("attributed", "rent", "all_on_top_tier", "all_on_lowest_tier", "saving_per_request")


def costs(
    grouping: Annotated[Grouping, typer.Option("--by", help="What a row stands for.")] = Grouping.TIER,
    days: Annotated[int, typer.Option(min=1, max=90, help="So many days in UTC, today included.")] = 7,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show what requests cost, the workers' rent, and what all of them would have cost on the top and the lowest tier.

    Example: bitladder costs --by tenant --days 1
    """
    answer = operations(url, api_key, config).costs(grouping.value, days)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    names = _NAMES[grouping]
    rows = [[*(row[name] for name in names), *_cells(row)] for row in answer["data"]]
    total = ["total", *[""] * (len(names) - 1), *_cells(answer["total"])]
    columns = [name.replace("_", " ") for name in (*names, *_COUNTS, *_MONEY[:-1])] + ["saving each"]
    typer.echo(table(columns, [*rows, total], title=f"{answer['since']} to {answer['until']}"))
    for model, tiers in answer["dominated"].items():
        for tier, higher in tiers.items():
            typer.secho(f"{model} {tier}: dominated, {higher} is better, and as fast and as cheap", err=True, fg="red")


def ladder(
    days: Annotated[int, typer.Option(min=1, max=90, help="So many days in UTC, today included.")] = 7,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show the tiers of each model, lowest first: its workers, what 1,000 written tokens have cost, what beats it.

    Example: bitladder ladder --days 1
    """
    side = operations(url, api_key, config)
    report = side.costs(Grouping.TIER.value, days)
    spent = {(row["model"], row["tier"]): row for row in report["data"]}
    rows = [
        _tier(model["model"], tier, spent.get((model["model"], tier["tier"]), {}), report["dominated"])
        for model in side.queues()["data"]
        for tier in model["tiers"]
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    cells = [["-" if value is None else value for value in row.values()] for row in rows]
    typer.echo(
        table([name.replace("_", " ") for name in rows[0]], cells, title=f"{report['since']} to {report['until']}")
    )


def _tier(model: str, tier: dict[str, Any], spent: dict[str, Any], dominated: dict[str, Any]) -> dict[str, Any]:
    tokens = spent.get("tokens", 0)
    return {
        "model": model,
        "tier": tier["tier"],
        "live_workers": tier["live_workers"],
        "requests": spent.get("requests", 0),
        "tokens": tokens,
        "cost_per_1000_tokens": round(spent["attributed"] / tokens * 1000, 6) if tokens else None,
        "dominated_by": dominated.get(model, {}).get(tier["tier"]),
    }


def _cells(row: dict[str, Any]) -> list[object]:
    # Rounded first, and 0 added: a difference of rounding is 0.000000, and not -0.000000.
    money = ["-" if row[name] is None else f"{round(row[name], 6) + 0.0:.6f}" for name in _MONEY]
    return [*(row[name] for name in _COUNTS), *money]
