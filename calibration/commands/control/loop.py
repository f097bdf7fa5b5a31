"""calibrate loop: from traffic to a promoted policy, as one run that goes on where it was."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from calibration.commands.app import make_app
from calibration.commands.control.canary import load
from calibration.commands.options import AsJson, ControlKey, say
from calibration.control.loop.loop_file import read_loop
from calibration.control.loop.loop_page import PAGE, is_signed, summary
from calibration.control.loop.loop_state import read_state
from calibration.control.loop.loop_steps import NAMES, PROMOTE, SAMPLE, steps_of, steps_on_traffic
from calibration.control.loop.promotion import require_files
from calibration.control.loop.run_loop import LoopEnd, LoopOptions, run_loop
from calibration.control.loop.run_loop import sign as sign_loop
from calibration.control.proposals.author import operator
from calibration.errors import InputError
from calibration.terminal.tabular import table

Folder = Annotated[
    Path, typer.Option("-o", "--out", help="the loop's folder: what its steps write, loop.json and index.html")
]
File = Annotated[Path, typer.Option("--file", "-f", help="what the loop does")]
_FILE = Path("loop.toml")
_TO_BE_SIGNED = 3


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="Go the whole way: sample, label, tune, ablate, propose, and, once somebody signed the page, canary and "
        "promote.\n\nExample: bitladder calibrate loop run -o var/loop -f loop.toml",
    )
    app.add_typer(group, name="loop")
    group.command("run")(_run)
    group.command("sign")(_sign)
    group.command("status")(_status)


def _run(
    folder: Folder,
    file: File = _FILE,
    until: Annotated[str, typer.Option(help=f"stop behind this step: {', '.join(NAMES)}")] = PROMOTE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check the file, and show the commands")] = False,
    api_key: ControlKey = None,
    as_json: AsJson = False,
) -> None:
    """Do the steps that are not done. Called again, it goes on where it was; a step whose input changed is done again.

    Exit status 0: the policy is promoted, or the loop is where --until says; 1: the labels prove no policy, or its
    canary was refused; 3: the page waits for a signature; another one is that of the step that failed.

    Example: bitladder calibrate loop run -o var/loop -f loop.toml --dry-run

    Example: bitladder calibrate loop run -o var/loop -f loop.toml --until propose
    """
    loop = read_loop(file)
    steps = [*steps_of(loop, folder), *steps_on_traffic(loop, folder, next(iter(loop.policies)), "PROPOSAL")]
    if until not in NAMES or (until == SAMPLE and loop.prompts):
        raise InputError(f"--until must be one of {', '.join(NAMES)}, and a step of this loop, got {until!r}")
    require_files(loop, load(loop.config or None))
    for step in steps:
        _check(step.name, step.arguments)
    if dry_run:
        typer.echo("\n".join(f"bitladder calibrate {shlex.join(step.arguments)}" for step in steps))
        return
    end = run_loop(loop, folder, LoopOptions(api_key=api_key, until=until, say=say))
    _show(folder, end, as_json=as_json)
    if end.state == "to be signed":
        raise typer.Exit(_TO_BE_SIGNED)
    if end.state in ("refused", "failed"):
        raise typer.Exit(max(1, read_state(folder).steps[end.step].exit_status))


def _sign(
    folder: Folder,
    name: Annotated[str, typer.Option(help="who signs")] = "",
    note: Annotated[str, typer.Option(help="kept beside it")] = "",
    page: Annotated[str, typer.Option(help="the digest on the page that you have read: another one is refused")] = "",
    file: File = _FILE,
    as_json: AsJson = False,
) -> None:
    """Sign what the page says: the policy may then go to a canary, and be promoted if that finds it fine.

    Example: bitladder calibrate loop sign -o var/loop --name "A. Turing" --note "read the ablation"
    """
    signature = sign_loop(folder, read_loop(file), (name or operator())[:100], note[:1000], page).signature
    assert signature is not None  # noqa: S101  (just made)
    if as_json:
        typer.echo(json.dumps(msgspec.structs.asdict(signature)))
        return
    typer.echo(f"signed by {signature.name} at {signature.at}: {signature.page[:16]}")


def _status(folder: Folder, *, as_json: AsJson = False) -> None:
    """Show how far a loop is.

    Example: bitladder calibrate loop status -o var/loop
    """
    state = read_state(folder)
    if not state.steps:
        raise InputError(f"there is no loop in {str(folder)!r}")
    outcomes = {name: state.steps[name].outcome for name in NAMES if name in state.steps}
    figures = {
        "steps": outcomes,
        "proposal": state.proposal,
        "policy": state.policy,
        "signed": is_signed(state),
        "summary": summary(state),
    }
    if as_json:
        typer.echo(json.dumps(figures))
        return
    rows = [(name, outcomes.get(name, "")) for name in NAMES]
    typer.echo(table(("step", "outcome"), [*rows, ("signed", "yes" if is_signed(state) else "no")]))
    typer.echo(summary(state))


def _show(folder: Path, end: LoopEnd, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(msgspec.structs.asdict(end)))
        return
    typer.echo(f"{end.step}: {end.state}{f' ({end.message})' if end.message else ''}")
    typer.echo(f"page: {folder / PAGE}")
    if end.state == "to be signed":
        typer.echo(f"read it, and sign it: bitladder calibrate loop sign -o {folder} --name NAME --page {end.page}")


def _check(name: str, arguments: Sequence[str]) -> None:
    """Read a step's arguments as its command will, hours before it is run.

    Raises:
        InputError: it will not take them.

    """
    command: Any = typer.main.get_command(make_app(arguments))  # Any: of the click within typer
    place = 0
    while subcommands := getattr(command, "commands", None):
        command = subcommands[arguments[place]]
        place += 1
    try:
        command.make_context(name, list(arguments[place:]))
    except typer.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        raise InputError(f"[{name}] {message}") from error
