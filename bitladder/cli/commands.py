"""The `bitladder` command: what each subcommand is, and which file does it.

Only the file of the requested one is loaded: `bitladder --help` imports no library but typer.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bitladder.cli.output import ExitCode, exit_code
from bitladder.errors import BitladderError


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a command is: a function, or the typer.Typer of a group."""

    name: str
    module: str
    attribute: str
    summary: str  # the first line of its help: `bitladder --help` shows it without loading the file


# What Python makes of bytes that are no UTF-8.
_UNDECODED = re.compile(r"[\udc80-\udcff]")

_PLACES = (
    _Place("up", "serving", "up", "Run the whole stack until Ctrl-C: Redis, the intake, a worker per tier."),
    _Place("serve", "serve", "serve", "Run one intake."),
    _Place("worker", "processes", "worker", "Run one worker of one tier."),
    _Place("redis", "serving", "redis_server", "Run the embedded Valkey at the configured URL."),
    _Place("calibrate", "processes", "calibrate", "Go from real traffic to checkpoints that are proven good."),
    _Place(
        "demo", "demo.demo", "demo", "Send 40 mixed prompts through a private stack, and show where each was served."
    ),
    _Place(
        "doctor",
        "ops.doctor.doctor_command",
        "doctor",
        "Say what would keep processes here from serving well, and its cure.",
    ),
    _Place("loadtest", "ops.loadtest.loadtest_command", "loadtest", "Send traffic, and report how well it was served."),
    _Place(
        "failover", "ops.failover_command", "failover", "Put a replica in the primary's place without losing a job."
    ),
    _Place("submit", "job_commands", "submit", "Submit one prompt; prints its job id, or its answer."),
    _Place("result", "job_commands", "result", "Show the outcome of a job."),
    _Place("cancel", "cancel_command", "cancel", "Cancel a job, or many by a filter."),
    _Place("batch", "batch.batch_app", "app", "Run a file of requests into a file of answers, here or at an intake."),
    _Place("explain", "explain_command", "explain", "Say why a job went where it went, or where a prompt would go."),
    _Place("top", "top.top_command", "top", "Show all tiers, workers and costs, and what to look at, live."),
    _Place("jobs", "ops.listing_commands", "jobs_app", "List jobs by state, tier, tenant, tag and more, or show one."),
    _Place("workers", "ops.listing_commands", "workers", "List the workers: where each runs, and whether it is ready."),
    _Place("tenants", "ops.listing_commands", "tenants", "List the tenants: their jobs, and what they cost today."),
    _Place("queues", "ops.inspection", "queues", "Show what waits and runs, and how many workers live."),
    _Place("pause", "ops.steering.steer_commands", "pause", "Pause a tier, a lane, a tenant, a model or everything."),
    _Place("resume", "ops.steering.steer_commands", "resume", "Lift a pause."),
    _Place("drain", "ops.steering.steer_commands", "drain", "Have workers finish what they run, and end."),
    _Place("purge", "ops.steering.job_order_commands", "purge", "Cancel jobs that wait, by a filter."),
    _Place("move", "ops.steering.job_order_commands", "move", "Move waiting jobs up to a higher tier."),
    _Place("audit", "ops.steering.steer_commands", "audit", "Show what operators ordered, and what came of it."),
    _Place("costs", "ops.costs", "costs", "Show what requests have cost, and what they would have at one tier."),
    _Place("ladder", "ops.costs", "ladder", "Show each tier: its workers, what its tokens cost, and what beats it."),
    _Place("version", "ops.inspection", "version", "Show the version."),
    _Place("config", "ops.inspection", "config", "Look at the configuration."),
    _Place("settings", "ops.settings_commands", "app", "Show and change settings of all running processes."),
    _Place("dead-letters", "ops.dead_letter_commands", "app", "List dead letters, release them or drop them."),
    _Place("keys", "ops.keys", "app", "Make, list and revoke API keys."),
)
_BY_NAME = {place.name: place for place in _PLACES}


class _LazyGroup(TyperGroup):
    """A group whose commands are loaded when they are called: to list them needs none of them."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own Context
        del ctx
        return list(_BY_NAME)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ANN401
        del ctx
        return _load(cmd_name) if cmd_name in _BY_NAME else None

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(place.name, place.summary) for place in _PLACES])


@cache
def _load(name: str) -> Any:  # noqa: ANN401  (a command of the click within typer)
    place = _BY_NAME[name]
    loaded = getattr(import_module(f"bitladder.cli.{place.module}"), place.attribute)
    if not isinstance(loaded, typer.Typer):
        group = typer.Typer(add_completion=False, rich_markup_mode=None)
        group.command(name, context_settings=_CALIBRATE if name == "calibrate" else None)(loaded)
        loaded = group
    command = typer.main.get_command(loaded)
    command.name = name
    return command


# It reads its own arguments.
_CALIBRATE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app = typer.Typer(
    name="bitladder",
    cls=_LazyGroup,
    help="Serve one LLM at several precisions: every request on the cheapest tier that answers it well and in time.",
    epilog="Exit statuses: docs/operating/commands.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from bitladder import __version__  # it asks the installed files

        typer.echo(f"bitladder {__version__}")
        raise typer.Exit


@app.callback()
def bitladder(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def run() -> None:
    """Run the command; an error of ours is its message on stderr and the exit status of its kind.

    So is one of the machine, a disk that is full or a file that may not be read, with status 1.
    """
    try:
        app()
    except BitladderError as error:
        sys.stderr.write(f"bitladder: {error}\n")
        sys.exit(exit_code(error))
    except UnicodeEncodeError as error:
        if not _UNDECODED.search(error.object):
            raise
        sys.stderr.write(f"bitladder: arguments must be UTF-8, got {error.object[:200]!a}\n")
        sys.exit(ExitCode.WRONG_USE)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        sys.stderr.write(f"bitladder: {text}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left of the output: Python would fail again on it
        sys.exit(ExitCode.FAILED)
