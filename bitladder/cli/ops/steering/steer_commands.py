"""bitladder pause, resume, drain and audit, at an intake or straight at Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.asking import Answer
from bitladder.cli.ops.durations import for_s
from bitladder.cli.ops.operations import operations
from bitladder.cli.output import ExitCode
from calibration.terminal.tabular import plain, table

_Tier = Annotated[str | None, typer.Option(help="A tier.")]
_Lane = Annotated[str | None, typer.Option(help="A lane: urgent, normal or batch.")]
_Tenant = Annotated[str | None, typer.Option(help="A tenant, over all models.")]
_Model = Annotated[str | None, typer.Option(help="The model of the tier or lane; alone: all of it.")]
_Everything = Annotated[bool, typer.Option("--everything", help="Everything, as `rq suspend` does.")]
_Reason = Annotated[str, typer.Option(help="Why: the audit log and `bitladder queues` show it.")]
_Scope = Annotated[str | None, typer.Option(help="A scope as `bitladder pause --list` names it.")]


def pause(
    tier: _Tier = None,
    lane: _Lane = None,
    tenant: _Tenant = None,
    model: _Model = None,
    everything: _Everything = False,
    for_: Annotated[
        str | None, typer.Option("--for", help="It ends by itself after this: 45s, 10m, 12h or 7d.")
    ] = None,
    reason: _Reason = "",
    listed: Annotated[bool, typer.Option("--list", help="Only show what is paused.")] = False,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Pause a tier, a lane, a tenant, a model or everything: nothing more of it begins. What runs goes on.

    The workers of a paused tier claim nothing, and its jobs go to higher tiers. Jobs of a paused lane or tenant wait.

    Example: bitladder pause --tier int4 --for 10m --reason "odd answers"

    Example: bitladder pause --tenant acme

    Example: bitladder pause --everything
    """
    side = operations(url, api_key, config)
    if listed:
        answer = side.pauses()
        pauses = answer["data"]
    else:
        body = _target(tier=tier, lane=lane, tenant=tenant, model=model, everything=everything, reason=reason)
        answer = side.order("pause", body | ({"for_s": for_s(for_)} if for_ is not None else {}))
        pauses = answer["pauses"]
    _show(answer, _pause_lines(pauses), as_json=as_json)


def resume(
    tier: _Tier = None,
    lane: _Lane = None,
    tenant: _Tenant = None,
    model: _Model = None,
    everything: _Everything = False,
    scope: _Scope = None,
    worker: Annotated[str | None, typer.Option(help="A worker that `drain --keep` left idle.")] = None,
    reason: _Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Lift a pause, or have a worker claim again that was drained and kept. Other pauses stay.

    Example: bitladder resume --tier int4

    Example: bitladder resume --everything
    """
    side = operations(url, api_key, config)
    body = _target(tier=tier, lane=lane, tenant=tenant, model=model, everything=everything, scope=scope, reason=reason)
    if worker:
        answer = side.order("drain", {"worker": worker, "resume": True, "reason": reason})
        done, lines = bool(answer["workers"]), [f"resumed {name}" for name in answer["workers"]]
        lines = lines or [f"{plain(worker)} was not drained, or is gone"]
    else:
        answer = side.order("resume", body)
        done = answer["was_paused"]
        line = f"resumed {answer['resumed']}" if done else f"{answer['resumed']} was not paused"
        lines = [line, *(f"still paused: {other}" for other in _pause_lines(answer["pauses"], none=""))]
    _show(answer, lines, as_json=as_json)
    raise typer.Exit(ExitCode.DONE if done else ExitCode.NOT_FOUND)


def drain(
    worker: Annotated[str | None, typer.Argument(help="The worker, as `bitladder workers` names it.")] = None,
    tier: Annotated[str | None, typer.Option(help="All workers of a tier that live now.")] = None,
    model: Annotated[str | None, typer.Option(help="The model of the tier.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="They stay idle, until `bitladder resume --worker`.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    reason: _Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Have workers finish what they run, claim nothing more, and end with status 0.

    A supervisor that restarts them brings them back, under new names: pause the tier to keep it empty.

    Example: bitladder drain smollm2.int4.cf19a9dcd890

    Example: bitladder drain --tier int4 --dry-run
    """
    body = {"worker": worker, "tier": tier, "model": model, "keep": keep, "dry_run": dry_run, "reason": reason}
    answer = operations(url, api_key, config).order("drain", {k: v for k, v in body.items() if v not in (None, "")})
    word = "would drain" if dry_run else "draining, to stay idle:" if keep else "draining"
    _show(answer, [f"{word} {name}" for name in answer["workers"]] or ["no live worker"], as_json=as_json)


def audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Those before this entry.")] = None,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show what operators ordered, the latest first: who, what, why, and what came of it.

    Example: bitladder audit --limit 20
    """
    answer = operations(url, api_key, config).audit(limit, after)
    rows = [
        (_time(row["at"]), row["by"], row["what"], row["on"], row["reason"], _result(row["result"]))
        for row in answer["data"]
    ]
    _show(answer, [table(("at", "by", "what", "on", "reason", "result"), rows)], as_json=as_json)
    if answer["has_more"] and not as_json:
        typer.echo(f"there are more: --after {answer['next_cursor']}", err=True)


def pause_words(entry: dict[str, Any]) -> str:
    """Return a pause in words."""
    since = f" since {_time(entry['since'])}" if entry["since"] else ""
    until = f", until {_time(entry['until'])}" if entry["until"] else ""
    reason = f": {entry['reason']}" if entry["reason"] else ""
    where = f" (at {entry['redis']} Redis)" if "redis" in entry else ""
    return plain(f"{entry['scope']}{where}, by {entry['by'] or 'another program'}{since}{until}{reason}")


def _pause_lines(pauses: list[dict[str, Any]], none: str = "nothing is paused") -> Iterator[str]:
    yield from (pause_words(entry) for entry in pauses)
    if none and not pauses:
        yield none


def _target(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in (None, "", False)}


def _result(result: object) -> str:
    """Return what came of an order in words: times are kept in ms."""
    if not isinstance(result, dict):
        return str(result)
    shown = {name: value for name, value in result.items() if name != "until"}
    if "until" in result:
        shown = {"until": _time(result["until"] / 1000) if result["until"] else "resumed"} | shown
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in shown.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in words.items())


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show(answer: Answer, lines: Iterable[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(answer, indent=2) if as_json else "\n".join(lines))
