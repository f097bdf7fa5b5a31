"""bitladder purge and move, and what `bitladder cancel` does with a filter: counted, asked, carried out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.ops.durations import span_s
from bitladder.cli.ops.operations import Answer, Operations, operations
from bitladder.cli.output import ExitCode
from bitladder.errors import ConfigError
from calibration.terminal.tabular import plain, table

Tier = Annotated[str | None, typer.Option(help="Only jobs of this tier.")]
Lane = Annotated[str | None, typer.Option(help="Only jobs of this lane.")]
Model = Annotated[str | None, typer.Option(help="Only jobs of this model.")]
Tenant = Annotated[str | None, typer.Option(help="Only jobs of this tenant.")]
Tag = Annotated[str | None, typer.Option(help="Only jobs with this tag.")]
Batch = Annotated[str | None, typer.Option(help="Only jobs of this batch.")]
OlderThan = Annotated[str | None, typer.Option(help="Only jobs that wait (or run) for so long: 45s, 10m, 12h.")]
All = Annotated[bool, typer.Option("--all", help="Every job.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Only count the jobs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal to ask on.")]
Reason = Annotated[str, typer.Option(help="Why: the audit log shows it.")]


def purge(
    tier: Tier = None,
    lane: Lane = None,
    model: Model = None,
    tenant: Tenant = None,
    tag: Tag = None,
    batch: Batch = None,
    older_than: OlderThan = None,
    everything: All = False,
    dry_run: Dry = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Cancel jobs that wait, and none that runs. Whoever awaits them is told at once. Counts and asks first.

    Example: bitladder purge --tier int4 --lane batch --dry-run

    Example: bitladder purge --tenant acme --older-than 10m --reason "a loop at acme" --yes
    """
    chosen = job_filter(tier=tier, lane=lane, model=model, tenant=tenant, tag=tag, batch=batch, older_than=older_than)
    order = JobOrder(operations(url, api_key, config), "purge", {}, as_json=as_json)
    order.carry_out(chosen, everything=everything, dry_run=dry_run, yes=yes, reason=reason)


def move(
    to: Annotated[str, typer.Option(help="The tier that they go to.")],
    tier: Tier = None,
    lane: Lane = None,
    model: Model = None,
    tenant: Tenant = None,
    tag: Tag = None,
    batch: Batch = None,
    older_than: OlderThan = None,
    everything: All = False,
    dry_run: Dry = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Move waiting jobs up to a higher tier, behind those that wait there. Jobs whose ceiling is below stay.

    Example: bitladder move --tier int4 --older-than 30s --to int8 --dry-run
    """
    chosen = job_filter(tier=tier, lane=lane, model=model, tenant=tenant, tag=tag, batch=batch, older_than=older_than)
    order = JobOrder(operations(url, api_key, config), "move", {"to": to}, as_json=as_json)
    order.carry_out(chosen, everything=everything, dry_run=dry_run, yes=yes, reason=reason)


def job_filter(*, older_than: str | None, **named: str | None) -> dict[str, Any]:
    """Return a filter of options."""
    chosen: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if older_than is not None:
        seconds = span_s(older_than)
        if seconds is None:
            raise ConfigError(f"--older-than takes a span like 45s, 10m or 12h, got {older_than!r}")
        chosen["older_than"] = seconds
    return chosen


class JobOrder:
    """An order about many jobs: what is touched is what was counted, and nothing that came later."""

    def __init__(self, side: Operations, word: str, more: Mapping[str, object], *, as_json: bool) -> None:
        self._side, self._word, self._more, self._as_json = side, word, more, as_json

    def carry_out(
        self, chosen: Mapping[str, object], *, everything: bool, dry_run: bool, yes: bool, reason: str
    ) -> None:
        """Count, ask where there is somebody to ask, and carry it out."""
        body = {**self._more, "filter": chosen, "all": everything and not chosen, "reason": reason}
        count = self._side.order(self._word, body)
        if dry_run or not count["count"]:
            self._show(count, f"would {self._word} {_jobs(count)}" if dry_run else f"{self._word}: no job matches")
            return
        if not yes:
            self._ask(count)
        answer = self._side.order(self._word, {**body, "dry_run": False, "confirm": count["confirm"]})
        results = ", ".join(f"{number} {result}" for result, number in answer["results"].items())
        self._show(answer, f"{self._word}: {results or 'no job was left'}")
        if answer["has_more"]:
            typer.echo("there are more: give the order again", err=True)
            raise typer.Exit(ExitCode.FAILED)

    def _ask(self, count: Answer) -> None:
        rows = [(plain(queue), number) for queue, number in count["by_queue"].items()]
        typer.echo(table(("queue", "jobs"), rows), err=True)
        question = f"{self._word} {_jobs(count)}?"
        if not sys.stdin.isatty():
            raise ConfigError(f"{question} There is no terminal to ask on: pass --yes")
        typer.confirm(question, abort=True, err=True)

    def _show(self, answer: Answer, words: str) -> None:
        typer.echo(json.dumps(answer, indent=2) if self._as_json else words)


def _jobs(count: Answer) -> str:
    return f"{'more than ' if count['has_more'] else ''}{count['count']} job{'' if count['count'] == 1 else 's'}"
