"""bitladder settings list, set, unset and history: settings that all running processes take at once."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.asking import Answer
from bitladder.cli.ops.durations import for_s
from bitladder.cli.ops.settings_side import SettingsSide
from bitladder.errors import ConfigError
from bitladder.settings.live_values import in_words
from calibration.terminal.tabular import plain, table

app = typer.Typer(
    help="Show and change settings of all running processes.", no_args_is_help=True, rich_markup_mode=None
)
_Reason = Annotated[str, typer.Option(help="Why: it is kept with the change.")]
_Revision = Annotated[
    int | None, typer.Option(min=0, help="Only where nobody has changed them since this revision was listed.")
]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Only check the change.")]


@app.command("list")
def list_settings(
    only_live: Annotated[bool, typer.Option("--live", help="Only those that are changed.")] = False,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """List the settings that may be changed while the system runs, with value, source and who changed them.

    Example: bitladder settings list --live
    """
    answer = SettingsSide(url, api_key, config).list(only_live=only_live)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    rows = [(row["key"], _shown(row["value"]), _shown(row["configured"]), _source(row)) for row in answer["data"]]
    typer.echo(table(("setting", "value", "configured", "source"), rows))
    typer.echo(f"revision {answer['revision']}", err=True)
    if answer["problem"]:
        typer.secho(plain(answer["problem"]), err=True, fg="red")


@app.command("set")
def set_settings(
    values: Annotated[list[str], typer.Argument(help="As models.smollm2.tiers.int4.high=32: JSON, else text.")],
    reason: _Reason = "",
    for_: Annotated[
        str | None,
        typer.Option(
            "--for", help="They end by themselves after this (45s, 10m, 12h, 7d): what was set before counts."
        ),
    ] = None,
    revision: _Revision = None,
    dry_run: _Dry = False,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Change settings of all running intakes and workers, within two seconds and until they are unset.

    Example: bitladder settings set models.smollm2.tiers.int4.high=32 policy.name=fixed:int8 --reason 'evening peak'

    Example: bitladder settings set policy.name=fixed:int8 --for 2h --reason 'int4 is ill'
    """
    ends = {"for_s": for_s(for_)} if for_ is not None else {}
    order = _order(reason, revision, dry_run=dry_run) | ends | {"set": dict(map(_pair, values))}
    _show(SettingsSide(url, api_key, config).change(order), as_json=as_json)


@app.command("unset")
def unset_settings(
    keys: Annotated[list[str] | None, typer.Argument(help="Settings.")] = None,
    unset_all: Annotated[bool, typer.Option("--all", help="All, also where what Redis has cannot be read.")] = False,
    reason: _Reason = "",
    revision: _Revision = None,
    dry_run: _Dry = False,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Take changes back: what the files, variables and flags of each process say counts again.

    Example: bitladder settings unset models.smollm2.tiers.int4.high
    """
    if bool(keys) == unset_all:
        raise ConfigError("name the settings to unset, or say --all, and not both")
    order = _order(reason, revision, dry_run=dry_run) | {"unset": keys or [], "unset_all": unset_all}
    _show(SettingsSide(url, api_key, config).change(order), as_json=as_json)


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=500, help="List at most so many changes.")] = 20,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """List the last changes, the latest first: who, when, why, the values before and after.

    Example: bitladder settings history --limit 5
    """
    answer = SettingsSide(url, api_key, config).history(limit)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    rows = [
        (entry["revision"], in_words(entry["at"]), entry["by"], *_change(change, entry.get("until")), entry["reason"])
        for entry in answer["data"]
        for change in entry["changes"]
    ]
    typer.echo(table(("revision", "when (UTC)", "who", "setting", "old", "new", "why"), rows))


def _order(reason: str, revision: int | None, *, dry_run: bool) -> Answer:
    return {"reason": reason, "revision": revision, "dry_run": dry_run}


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"a setting must be as models.smollm2.tiers.int4.high=32, got {text[:80]!r}")
    try:
        return key, msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return key, value


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(table(("setting", "old", "new"), [_change(change) for change in answer["changes"]]))
    typer.echo(f"{'checked only, as' if answer['dry_run'] else 'revision'} {answer['revision']}", err=True)


def _change(change: dict[str, Any], until: float | None = None) -> tuple[str, str, str]:
    end = " (unset)" if change["unset"] else _until(until)
    return change["key"], _shown(change["old"]), f"{_shown(change['new'])}{end}"


def _shown(value: object) -> str:
    return json.dumps(value)


def _source(row: dict[str, Any]) -> str:
    live = row["live"]
    if not live:
        return str(row["source"])
    effect = "" if live["in_effect"] else ", without effect: the configuration has none such"
    why = f": {live['reason']}" if live["reason"] else ""
    until = _until(live.get("until"))
    return f"revision {live['revision']}, {live['by']}, {in_words(live['at'])}{until}{why}{effect}"


def _until(at: float | None) -> str:
    return f" until {in_words(at)}" if at else ""
