"""bitladder purge and move, and what `bitladder cancel` does with a filter: counted, asked, carried out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import (
    ApiKey,
    AsJson,
    Config,
    DryRun,
    OperatorUrl,
    Reason,
    Yes,
    with_job_filter,
)
from bitladder.cli.ops.asking import Answer
from bitladder.cli.ops.durations import span_s
from bitladder.cli.ops.operations import Operations, operations
from bitladder.cli.output import ExitCode
from bitladder.errors import ConfigError
from calibration.terminal.tabular import plain, table

All = Annotated[bool, typer.Option("--all", help="Every job.")]


@with_job_filter
def purge(
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
    *,
    chosen: dict[str, str | None],
) -> None:
    """Cancel jobs that wait, and none that runs. Whoever awaits them is told at once. Counts and asks first.

    Example: bitladder purge --tier int4 --lane batch --dry-run

    Example: bitladder purge --tenant acme --older-than 10m --reason "a loop at acme" --yes
    """
    order = JobOrder(operations(url, api_key, config), "purge", {}, as_json=as_json)
    order.carry_out(job_filter(chosen), everything=everything, dry_run=dry_run, yes=yes, reason=reason)


@with_job_filter
def move(
    to: Annotated[str, typer.Option(help="The tier that they go to.")],
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
    *,
    chosen: dict[str, str | None],
) -> None:
    """Move waiting jobs up to a higher tier, behind those that wait there. Jobs whose ceiling is below stay.

    Example: bitladder move --tier int4 --older-than 30s --to int8 --dry-run
    """
    order = JobOrder(operations(url, api_key, config), "move", {"to": to}, as_json=as_json)
    order.carry_out(job_filter(chosen), everything=everything, dry_run=dry_run, yes=yes, reason=reason)


def job_filter(options: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the filter that options name (see `with_job_filter`)."""
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if (older_than := options.get("older_than")) is not None:
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
