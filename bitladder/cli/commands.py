"""The `bitladder` command: what each subcommand is, and which file does it."""

from __future__ import annotations

import os
import sys

import typer

from bitladder.cli import dead_letter_commands, inspection, job_commands, keys, serving
from bitladder.cli.demo import demo
from bitladder.cli.doctor import doctor
from bitladder.cli.failover import failover
from bitladder.errors import BitladderError

app = typer.Typer(
    name="bitladder",
    help="Serve one LLM at several precisions: every request on the cheapest tier that answers it well and in time.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for command in (serving.up, serving.serve, serving.worker, serving.redis_server):
    app.command(name="redis" if command is serving.redis_server else None)(command)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(serving.calibrate)
for other in (demo, doctor, failover, job_commands.submit, job_commands.result, job_commands.cancel):
    app.command()(other)
app.command()(inspection.queues)
app.command()(inspection.version)
_config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
_config_app.command("show")(inspection.config_show)
app.add_typer(_config_app, name="config")
app.add_typer(dead_letter_commands.app, name="dead-letters")
_keys_app = typer.Typer(help="Make API keys.", no_args_is_help=True)
_keys_app.callback()(lambda: None)  # without it typer would take a group of one command for that command
_keys_app.command("new")(keys.new)
app.add_typer(_keys_app, name="keys")


def run() -> None:
    """Run the command; an error of ours is its message on stderr and the exit status of its class.

    So is one of the machine, a disk that is full or a file that may not be read, with status 1.
    """
    try:
        app()
    except BitladderError as error:
        sys.stderr.write(f"bitladder: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stderr.write(f"bitladder: {error}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left of the output: Python would fail again on it
        sys.exit(BitladderError.exit_code)
