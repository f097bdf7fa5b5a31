"""calibrate proposals: what steps of the control loop would change; people say yes, no, or take it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from calibration.commands.options import DEFAULT_URL, AsJson, Url, key_option, say
from calibration.control.proposals.applying import apply, dismiss, undo
from calibration.control.proposals.author import operator, time_now
from calibration.control.proposals.intake_settings import IntakeSettings
from calibration.control.proposals.proposal import Proposal
from calibration.control.proposals.proposal_folder import DEFAULT_FOLDER, ProposalStore
from calibration.errors import InputError
from calibration.terminal.tabular import plain, table

Folder = Annotated[Path, typer.Option("--proposals", help="the folder of proposals")]
ApiKey = Annotated[str | None, key_option("the scope ops:write")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="the proposal, as `list` shows it")]
_Note = Annotated[str, typer.Option("--reason", help="why; kept in the proposal's history")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="Show what steps of the control loop propose; apply it to a running stack, and take it back.\n\n"
        "Example: bitladder calibrate proposals apply 20261130-014500-threshold-0123abcd --url http://127.0.0.1:8000",
    )
    app.add_typer(group, name="proposals")
    group.command("list")(_list)
    group.command("show")(_show)
    at_intake = "20261130-014500-threshold-0123abcd --url http://127.0.0.1:8000"
    text = "Do what a proposal says. Exit status 1, and nothing is changed, where something is not as it was."
    _decide(group, "apply", apply, text, at_intake)
    text = "Bring back what was before a proposal was applied. Exit status 1, and no change, where others were since."
    _decide(group, "undo", undo, text, at_intake)
    text = "Say no to an open proposal. The intake is asked only where nobody knows whether it was applied."
    _decide(group, "dismiss", dismiss, text, '20261130-014500-labels-0123abcd --reason "it was a load test"')


def _list(
    folder: Folder = DEFAULT_FOLDER,
    *,
    everything: Annotated[bool, typer.Option("--all", help="also those that are dismissed or undone")] = False,
    as_json: AsJson = False,
) -> None:
    """List proposals that are open or applied, the latest first; exit status 2 where a file of the folder is none.

    Example: bitladder calibrate proposals list --all
    """
    proposals, problems = ProposalStore(folder).all()
    shown = [proposal for proposal in proposals if everything or proposal.state in ("open", "applied")]
    if as_json:
        typer.echo(msgspec.json.encode(shown).decode())
    elif shown:
        rows = [(item.id, item.state, item.author, plain(item.reason)) for item in shown]
        typer.echo(table(("id", "state", "by", "reason"), rows))
    else:
        say(f"no proposals in {folder}" if everything else f"no open or applied proposals in {folder}")
    if problems:
        raise InputError("\n".join(problems))


def _show(proposal_id: _Id, folder: Folder = DEFAULT_FOLDER) -> None:
    """Print a proposal as JSON: its reason, evidence, what it would change, and what became of it.

    Example: bitladder calibrate proposals show 20261130-014500-threshold-0123abcd
    """
    typer.echo(_text(ProposalStore(folder).read(proposal_id)))


def _decide(group: typer.Typer, name: str, step: Callable[..., Proposal], text: str, example: str) -> None:
    """Add a command that moves a proposal into another state."""

    def decide(
        proposal_id: _Id,
        folder: Folder = DEFAULT_FOLDER,
        url: Url = DEFAULT_URL,
        api_key: ApiKey = None,
        note: _Note = "",
        *,
        as_json: AsJson = False,
    ) -> None:
        store = ProposalStore(folder, lambda: say("waiting for another command that changes proposals"))
        with IntakeSettings(url, api_key) as intake:
            proposal = step(store, proposal_id, intake, at=time_now(), author=operator(), note=note)
        _say(proposal, as_json=as_json)

    group.command(name, help=f"{text}\n\nExample: bitladder calibrate proposals {name} {example}")(decide)


def _say(proposal: Proposal, *, as_json: bool) -> None:
    if as_json:
        typer.echo(_text(proposal))
        return
    typer.echo(f"{proposal.id}: {proposal.state}")
    if proposal.state == "applied":
        typer.echo(f"taken back by: bitladder calibrate proposals undo {proposal.id}")


def _text(proposal: Proposal) -> str:
    return msgspec.json.format(msgspec.json.encode(proposal), indent=1).decode()
