"""A loop's proposal: the tuned policy in place of the file that the stack reads, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bitladder.settings.load import Loaded
from calibration.control.loop.loop_file import LoopFile
from calibration.control.loop.loop_state import LoopState
from calibration.control.loop.loop_steps import ABLATE, TUNE, policy_of
from calibration.control.proposals.applying import apply, undo
from calibration.control.proposals.author import operator, time_now
from calibration.control.proposals.intake_settings import IntakeSettings, LiveRow
from calibration.control.proposals.proposal import Change, FileChange, Proposal, new_proposal
from calibration.control.proposals.proposal_folder import ProposalStore, file_digest
from calibration.errors import InputError

AUTHOR = "loop"
_EXPECTED = "must be a table of kind learned in the intake's configuration, with a file (examples/learned_policy.json)"


def free_policy(loop: LoopFile, intake: IntakeSettings) -> str:
    """Return the first of the loop's policies that no request goes by now: to write its file changes nothing yet.

    Raises:
        InputError: all of them are in force, or unknown to the stack.

    """
    rows = intake.read()[1]
    unknown = [name for name in loop.policies if f"policies.{name}.limit" not in rows]
    if unknown:
        raise InputError(f"policies: {unknown[0]!r} {_EXPECTED}")
    in_force = _in_force(rows)
    free = [name for name in loop.policies if name not in in_force]
    if not free:
        raise InputError(
            f"policies: requests go by {', '.join(loop.policies)} now; name one more, so that a canary can try it"
        )
    return free[0]


def policies_in_force(intake: IntakeSettings) -> set[str]:
    """Return the names of all policies that some request goes by now."""
    return _in_force(intake.read()[1])


def _in_force(rows: Mapping[str, LiveRow]) -> set[str]:
    in_force = set[str]()
    for key, row in rows.items():
        if key == "policy.name" or key.endswith(".policy"):
            in_force.add(str(row.value))
        elif key.endswith(".shares") and isinstance(row.value, dict):
            in_force.update(row.value)
    return in_force


def require_files(loop: LoopFile, loaded: Loaded) -> None:
    """Check that the loop writes the very files that the stack's tables read.

    Raises:
        InputError: a table has another file, or is not there.

    """
    for name, file in loop.policies.items():
        table = loaded.settings.policies.get(name)
        if table is None or table.kind != "learned":
            raise InputError(f"policies: {name!r} {_EXPECTED}; {loaded.config_file} has none")
        read = loaded.config_file.absolute().parent / table.file
        if read.resolve() != Path(file).resolve():
            raise InputError(f"policies.{name} must be the file that the stack reads, {str(read)!r}, got {file!r}")


def propose(loop: LoopFile, folder: Path, state: LoopState, store: ProposalStore) -> Proposal:
    """Write the proposal to put the tuned policy where the stack reads it."""
    policy, place = policy_of(folder), Path(loop.policies[state.policy])
    after = file_digest(policy)
    assert after is not None  # noqa: S101  (tune has written it)
    content = f"policy-{after[:12]}"
    change = Change(files=(FileChange(path=str(place), content=content, before=file_digest(place), after=after),))
    evidence = {name: record.figures for name in (TUNE, ABLATE) if (record := state.steps.get(name))}
    proposal = new_proposal(
        "promote",
        f"policy {state.policy}: what was tuned on the labels of {folder}",
        at=time_now(),
        author=AUTHOR,
        evidence=evidence,
        change=change,
    )
    return store.add(proposal, {content: policy.read_bytes()})


def placed(store: ProposalStore, proposal_id: str, author: str) -> None:
    """Put the policy in place, unless it was before.

    Raises:
        InputError: somebody dismissed the proposal.
        ProposalRefusedError: the file is not the one that it was when this was proposed.

    """
    if store.read(proposal_id).state != "applied":
        apply(store, proposal_id, None, at=time_now(), author=author, note="signed; for its canary")


def take_back(store: ProposalStore, proposal_id: str) -> None:
    """Put the former policy back, whose canary was refused."""
    if store.read(proposal_id).state == "applied":
        undo(store, proposal_id, None, at=time_now(), author=operator(), note="its canary was refused")
