"""bitladder jobs, workers and tenants: what there is, and where."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.asking import Answer, say_unreachable
from bitladder.cli.ops.listing_side import ListingSide
from bitladder.errors import ConfigError
from calibration.terminal.tabular import plain, table

jobs_app = typer.Typer(rich_markup_mode=None)
_JOB_COLUMNS = ("id", "state", "model", "tier", "lane", "tenant", "age", "attempts", "worker", "error")
_WORKER_COLUMNS = (
    "worker",
    "tier",
    "state",
    "host",
    "pid",
    "checkpoint",
    "slots",
    "in flight",
    "tokens/s",
    "ready since",
    "version",
)
_TENANT_COLUMNS = ("tenant", "waiting", "running", "weight", "cost today", "jobs today", "limit")
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_FAILED = ("failed", "expired")

_State = Annotated[
    list[str] | None,
    typer.Option("--state", help="queued, running, finished, failed, cancelled or expired. Repeatable."),
]
_Follow = Annotated[bool, typer.Option("--follow", "--all", help="Page after page, to the end.")]


@jobs_app.callback(invoke_without_command=True)
def jobs(
    context: typer.Context,
    state: _State = None,
    model: Annotated[str | None, typer.Option(help="The model.")] = None,
    tier: Annotated[str | None, typer.Option(help="That serves or served them, or where they wait.")] = None,
    lane: Annotated[str | None, typer.Option(help="urgent, normal or batch.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose jobs.")] = None,
    tag: Annotated[str | None, typer.Option(help="One of their tags.")] = None,
    batch: Annotated[str | None, typer.Option(help="The batch that they are lines of.")] = None,
    key: Annotated[str | None, typer.Option(help="The Idempotency-Key of their request.")] = None,
    older_than: Annotated[str | None, typer.Option(help="So long in their state: 90, 90s, 15m, 2h or 7d.")] = None,
    error: Annotated[str | None, typer.Option(help="The code that they ended with.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The most jobs of a page.")] = 50,
    after: Annotated[str | None, typer.Option(help="The cursor of the page before.")] = None,
    follow: _Follow = False,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """List jobs by state, tier, tenant, tag and more, or show one.

    The latest come first, from an intake or straight from Redis. With --json and --follow: a line for each job.

    Example: bitladder jobs --state failed --older-than 15m --error engine_fault

    Example: bitladder jobs show 01890000-0000-7000-8000-000000000000
    """
    if context.invoked_subcommand:
        return
    words = {"model": model, "tier": tier, "lane": lane, "tenant": tenant, "tag": tag, "batch": batch, "key": key}
    words |= {"older_than": older_than and _seconds(older_than), "error": error}
    filters = [("state", word) for word in state or ()]
    filters += [(name, value) for name, value in words.items() if value is not None]
    _list_jobs(ListingSide(url, api_key, config), filters, (after, limit), as_json=as_json, follow=follow)


def _list_jobs(
    side: ListingSide,
    filters: Sequence[tuple[str, str]],
    first: tuple[str | None, int],
    *,
    as_json: bool,
    follow: bool,
) -> None:
    """Show pages; `first`: the cursor before the first one, and how many jobs a page has."""
    after, limit = first
    page = side.jobs(filters, after, limit)
    _show_page(page, as_json=as_json, follow=follow)
    while follow and page["next_cursor"]:
        page = side.jobs(filters, page["next_cursor"], limit)
        if page["data"]:
            _show_page(page, as_json=as_json, follow=follow)
    if not as_json:
        _say_scope(page, follow=follow)


@jobs_app.command("show")
def show_job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job.")],
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show one job without its answer: `bitladder result` has that, and `bitladder explain` says why it went there.

    Example: bitladder jobs show 01890000-0000-7000-8000-000000000000
    """
    job = ListingSide(url, api_key, config).job(job_id)
    shown = {name: value for name, value in job.items() if name not in ("result", "text", "features")}
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        typer.echo(plain(f"{name.ljust(24)} {value if isinstance(value, str) else json.dumps(value)}"))


def workers(as_json: AsJson = False, url: OperatorUrl = None, api_key: ApiKey = None, config: Config = None) -> None:
    """List the workers: where each runs, and whether it is ready.

    From an intake, or straight from Redis.

    Example: bitladder workers
    """
    answer = ListingSide(url, api_key, config).workers()
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    rows = [_worker(row) for row in answer["data"]]
    bad = [index for index, row in enumerate(answer["data"]) if row["state"] in ("broken", "silent", "lost")]
    typer.echo(table(_WORKER_COLUMNS, rows, red=bad))
    _say_more(answer, "workers")


def tenants(as_json: AsJson = False, url: OperatorUrl = None, api_key: ApiKey = None, config: Config = None) -> None:
    """List the tenants: their jobs, and what they cost today.

    From an intake, or straight from Redis.

    Example: bitladder tenants
    """
    answer = ListingSide(url, api_key, config).tenants()
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    rows = [
        (
            row["tenant"],
            row["waiting"],
            row["running"],
            row["weight"],
            f"{row['cost_today']:.6f}",
            row["jobs_today"],
            "-" if row["limit"] is None else row["limit"],
        )
        for row in answer["data"]
    ]
    typer.echo(table(_TENANT_COLUMNS, rows, title=f"{answer['day']} (UTC)"))
    _say_more(answer, "tenants")


def _seconds(text: str) -> str:
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--older-than must be as 90, 90s, 15m, 2h or 7d, got {text[:40]!r}")
    return repr(float(match[1]) * _UNIT_S[match[2]])


def _show_page(page: Answer, *, as_json: bool, follow: bool) -> None:
    if as_json and follow:
        for row in page["data"]:
            typer.echo(json.dumps(row))
    elif as_json:
        typer.echo(json.dumps(page, indent=2))
    else:
        red = [index for index, row in enumerate(page["data"]) if row["state"] in _FAILED]
        typer.echo(table(_JOB_COLUMNS, [_job(row) for row in page["data"]], red=red))


def _say_scope(page: Answer, *, follow: bool) -> None:
    """Say on stderr what was counted, and how to go on."""
    if page["counts"] is not None:
        counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in page["counts"].items())
        typer.echo(plain(f"{counts} ({page['counted']}, whatever else is asked)"), err=True)
    if page["left_out"]:
        typer.echo(f"{page['left_out']} tenants' lists were not looked at: name a tenant, a model or a lane", err=True)
    say_unreachable(page)
    if page["has_more"] and not follow:
        typer.echo(f"there is more: --follow, or --after {page['next_cursor']}", err=True)


def _say_more(answer: Answer, what: str) -> None:
    if answer["has_more"]:
        typer.echo(f"{len(answer['data'])} of {answer['total']} {what}", err=True)
    say_unreachable(answer)


def _job(row: dict[str, Any]) -> list[object]:
    error = row["error"] or {}
    cells = [row[name] for name in ("id", "state", "model", "tier", "lane", "tenant")]
    return [*cells, _age(row["age_s"]), row["attempts"], row["worker"] or "-", error.get("code") or "-"]


def _worker(row: dict[str, Any]) -> tuple[object, ...]:
    since = row["ready_since"]
    cells = (
        row["worker"],
        row["tier"],
        row["state"],
        row["host"],
        row["pid"],
        row["checkpoint"],
        row["slots"],
        row["in_flight"],
        row["tokens_per_s"],
        since and datetime.fromtimestamp(since, UTC).strftime("%m-%d %H:%M:%S"),
        row["version"],
    )
    return tuple("-" if cell is None else cell for cell in cells)


def _age(seconds: float) -> str:
    """Return an age in two units at most: 4.2s, 3m10s, 2h05m, 6d03h."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"
