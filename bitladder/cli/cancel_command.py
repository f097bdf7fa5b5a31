"""bitladder cancel: one job at an intake, or, for operators, many by a filter."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bitladder.cli.common_options import DEFAULT_URL, ApiKey, AsJson, Config, OperatorUrl
from bitladder.cli.job_commands import intake_client
from bitladder.cli.ops.operations import operations
from bitladder.cli.ops.steering import job_order_commands as options
from bitladder.errors import ConfigError


def cancel(
    job_id: Annotated[str | None, typer.Argument(help="The job.")] = None,
    tier: options.Tier = None,
    lane: options.Lane = None,
    model: options.Model = None,
    tenant: options.Tenant = None,
    tag: options.Tag = None,
    batch: options.Batch = None,
    older_than: options.OlderThan = None,
    everything: options.All = False,
    dry_run: options.Dry = False,
    yes: options.Yes = False,
    reason: options.Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Cancel a job; or, with a filter, all that wait or run, of every tenant: counted and asked first.

    Example: bitladder cancel 0199…

    Example: bitladder cancel --tenant acme --older-than 10m --dry-run
    """
    chosen = options.job_filter(
        tier=tier, lane=lane, model=model, tenant=tenant, tag=tag, batch=batch, older_than=older_than
    )
    if job_id is not None:
        if chosen or everything or dry_run or config:
            raise ConfigError("cancel takes the id of a job, or a filter, and not both")
        with intake_client(url or DEFAULT_URL, api_key) as client:
            job = client.cancel(job_id)
        typer.echo(json.dumps(job, indent=2) if as_json else job["status"])
        return
    order = options.JobOrder(operations(url, api_key, config), "cancel", {}, as_json=as_json)
    order.carry_out(chosen, everything=everything, dry_run=dry_run, yes=yes, reason=reason)
