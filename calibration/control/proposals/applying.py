"""Apply proposals and take them back: exactly what was there before, or nothing, where somebody else was there since.

What takes a proposal back is written before anything is changed. So after a crash or a lost answer the same call can
be made again: it sees by the live settings' own note (its reason begins with the proposal's id) what was done. Settings
are changed all at once, so one that has the note says it of all. Where nothing has it, and others are in force since,
the proposal cannot be applied any more, and can be dismissed: then the files that it had put in place are taken back.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from calibration.artifacts.folder import replace_file
from calibration.control.proposals.intake_settings import IntakeSettings, LiveRow
from calibration.control.proposals.proposal import Change, FileChange, Proposal, Undo, moved
from calibration.control.proposals.proposal_folder import ProposalStore, file_digest
from calibration.errors import InputError, ProposalRefusedError

Rows = dict[str, LiveRow]


def apply(
    store: ProposalStore, proposal_id: str, intake: IntakeSettings | None, *, at: str, author: str, note: str = ""
) -> Proposal:
    """Do what a proposal says; return it as applied.

    Raises:
        InputError: it is not open, changes nothing by itself, or needs an intake.
        ProposalRefusedError: something is not as it was when it was proposed; nothing was changed.

    """
    with store.locked():
        proposal = _in_state(store.read(proposal_id), "open")
        change = proposal.change
        if change is None:
            raise InputError(f"{proposal_id} changes nothing by itself: {proposal.reason}")
        revision, rows = _read(intake, change)
        done = _done_before(proposal, rows)
        if done is None:
            _require_unchanged(store, change, rows)
            kept = tuple(key for key in change.settings if _row(rows, key).is_live)
            undo = Undo(
                settings={key: rows[key].value for key in kept},
                unset=tuple(k for k in change.settings if k not in kept),
            )
            proposal = msgspec.structs.replace(proposal, undo=undo)
            store.write(proposal)
        _place(store, proposal_id, change.files)
        if change.settings and intake and done is None:
            reason = f"{_mark(proposal_id)} {proposal.reason}"
            try:
                done = intake.change(change.settings, (), reason=reason, revision=revision)
            except ProposalRefusedError:
                _restore(store, proposal_id, change.files)
                store.write(msgspec.structs.replace(proposal, undo=None))
                raise
        assert proposal.undo is not None  # noqa: S101  (written above, or it was done before)
        undo = msgspec.structs.replace(proposal.undo, revision=done)
        applied = moved(msgspec.structs.replace(proposal, undo=undo), "applied", at=at, author=author, note=note)
        store.write(applied)
    return applied


def undo(
    store: ProposalStore, proposal_id: str, intake: IntakeSettings | None, *, at: str, author: str, note: str = ""
) -> Proposal:
    """Bring back what there was before a proposal was applied; return it as undone.

    Raises:
        InputError: it is not applied, or needs an intake.
        ProposalRefusedError: somebody else has changed the same since; nothing was changed.

    """
    with store.locked():
        proposal = _in_state(store.read(proposal_id), "applied")
        change, before = proposal.change, proposal.undo
        if change is None or before is None:
            raise InputError(f"{proposal_id} says nothing of what was before it")
        revision, rows = _read(intake, change)
        is_done = bool(change.settings) and _is_undone(before, rows)
        if not is_done:
            _require_ours(proposal_id, before, change, rows)
        _require_placed(change.files, placed_or_restored=is_done)
        if change.settings and intake and not is_done:
            reason = f"{_undo_mark(proposal_id)} {note}"
            intake.change(before.settings, before.unset, reason=reason, revision=revision)
        _restore(store, proposal_id, change.files)
        undone = moved(proposal, "undone", at=at, author=author, note=note)
        store.write(undone)
    return undone


def dismiss(
    store: ProposalStore, proposal_id: str, intake: IntakeSettings | None, *, at: str, author: str, note: str = ""
) -> Proposal:
    """Say no to an open proposal.

    Raises:
        InputError: it is not open, was applied by a call that never heard of it, or needs an intake to know that.

    """
    with store.locked():
        proposal = _in_state(store.read(proposal_id), "open")
        if proposal.undo is not None and proposal.change is not None:
            _, rows = _read(intake, proposal.change)
            if _done_before(proposal, rows) is not None:
                raise InputError(
                    f"{proposal_id} is in force, though no answer said so: apply it again, and then undo it"
                )
            _restore(store, proposal_id, proposal.change.files)
            proposal = msgspec.structs.replace(proposal, undo=None)
        dismissed = moved(proposal, "dismissed", at=at, author=author, note=note)
        store.write(dismissed)
    return dismissed


def _in_state(proposal: Proposal, state: str) -> Proposal:
    if proposal.state != state:
        raise InputError(f"{proposal.id} is {proposal.state}, expected one that is {state}")
    return proposal


def _read(intake: IntakeSettings | None, change: Change) -> tuple[int, Rows]:
    if not change.settings:
        return 0, {}
    if intake is None:
        raise InputError(f"it changes live settings ({', '.join(change.settings)}): name an intake with --url")
    return intake.read()


def _row(rows: Rows, key: str) -> LiveRow:
    """Return a setting; one of a policy that is not there yet is not set."""
    return rows.get(key) or LiveRow(value=None)


def _mark(proposal_id: str) -> str:
    return f"proposal {proposal_id}:"


def _undo_mark(proposal_id: str) -> str:
    return f"undo of proposal {proposal_id}:"


def _done_before(proposal: Proposal, rows: Rows) -> int | None:
    """Return the revision by which a call that never heard of it applied the proposal, or None."""
    if proposal.undo is None or proposal.change is None:
        return None
    marked = (_row(rows, key) for key in proposal.change.settings)
    return next((row.revision for row in marked if row.reason.startswith(_mark(proposal.id))), None)


def _is_undone(before: Undo, rows: Rows) -> bool:
    """Tell whether all is as it was before: by a call that never heard of it, or by hand."""
    held = ((_row(rows, key), value) for key, value in before.settings.items())
    return not any(_row(rows, key).is_live for key in before.unset) and all(
        row.is_live and row.value == value for row, value in held
    )


def _require_unchanged(store: ProposalStore, change: Change, rows: Rows) -> None:
    for key, value in change.was.items():
        if (now := _row(rows, key)).value != value:
            raise ProposalRefusedError(
                f"{key} is {now.value!r}, and was {value!r} when this was proposed{_by(now)}; nothing was changed: "
                "dismiss it, and propose anew"
            )
    for file in change.files:
        digest = file_digest(Path(file.path))
        if digest not in (file.before, file.after):
            raise ProposalRefusedError(
                f"{file.path} is not what it was when this was proposed; nothing was changed: dismiss it, and propose "
                "anew"
            )
        if digest != file.after and file_digest(store.folder / file.content) != file.after:
            raise ProposalRefusedError(f"{file.content} in {str(store.folder)!r} is not what was proposed")


def _require_ours(proposal_id: str, before: Undo, change: Change, rows: Rows) -> None:
    for key in change.settings:
        now = _row(rows, key)
        if not now.is_live or now.revision != before.revision:
            what = f"{key} is {now.value!r}{_by(now)}" if now.is_live else f"{key} is not set live any more"
            raise ProposalRefusedError(
                f"somebody else has changed it since {proposal_id} was applied: {what}; nothing was changed: set by "
                "hand what was before (`bitladder settings set` and `unset`), and undo it again"
            )


def _by(row: LiveRow) -> str:
    return f" (revision {row.revision}, by {row.author}: {row.reason or 'no reason'})" if row.is_live else ""


def _require_placed(files: tuple[FileChange, ...], *, placed_or_restored: bool) -> None:
    for file in files:
        expected = (file.after, file.before) if placed_or_restored else (file.after,)
        if file_digest(Path(file.path)) not in expected:
            raise ProposalRefusedError(f"somebody else has changed {file.path} since; nothing was changed")


def _place(store: ProposalStore, proposal_id: str, files: tuple[FileChange, ...]) -> None:
    for number, file in enumerate(files):
        path = Path(file.path)
        if file_digest(path) == file.after:
            continue
        if file.before is not None:
            store.keep(_former(proposal_id, number), path.read_bytes())
        replace_file(path, store.kept(file.content))


def _restore(store: ProposalStore, proposal_id: str, files: tuple[FileChange, ...]) -> None:
    """Take back what was put in place; what others have put there since stays."""
    for number, file in enumerate(files):
        if file_digest(Path(file.path)) != file.after:
            continue
        if file.before is None:
            Path(file.path).unlink(missing_ok=True)
        else:
            replace_file(Path(file.path), store.kept(_former(proposal_id, number)))


def _former(proposal_id: str, number: int) -> str:
    return f"{proposal_id}.{number}.former"
