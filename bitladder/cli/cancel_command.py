"""bitladder cancel: one job at an intake, or, for operators, many by a filter."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bitladder.cli.common_options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Config,
    DryRun,
    OperatorUrl,
    Reason,
    Yes,
    with_job_filter,
)
from bitladder.cli.job_commands import intake_client
from bitladder.cli.ops.operations import operations
from bitladder.cli.ops.steering.job_order_commands import All, JobOrder, job_filter
from bitladder.errors import ConfigError


@with_job_filter
def cancel(
    job_id: Annotated[str | None, typer.Argument(help="The job.")] = None,
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
    """Cancel a job; or, with a filter, all that wait or run, of every tenant: counted and asked first.

    Example: bitladder cancel 0199…

    Example: bitladder cancel --tenant acme --older-than 10m --dry-run
    """
    selection = job_filter(chosen)
    if job_id is not None:
        if selection or everything or dry_run or config:
            raise ConfigError("cancel takes the id of a job, or a filter, and not both")
        with intake_client(url or DEFAULT_URL, api_key) as client:
            job = client.cancel(job_id)
        typer.echo(json.dumps(job, indent=2) if as_json else job["status"])
        return
    order = JobOrder(operations(url, api_key, config), "cancel", {}, as_json=as_json)
    order.carry_out(selection, everything=everything, dry_run=dry_run, yes=yes, reason=reason)
