"""A proposal: what would be changed and why, what has become of it, and what takes it back. Pure.

    open ──apply──► applied ──undo──► undone
      └──dismiss──► dismissed

docs/calibration/proposals.md shows the file.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec

Kind = Literal["threshold", "labels", "requantize", "promote", "rollback"]
State = Literal["open", "applied", "undone", "dismissed"]
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z]+-[0-9a-f]{8}")
_Words = Annotated[str, msgspec.Meta(max_length=2000)]


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is replaced: by which one of the proposals' folder, and the digests of before and after."""

    path: str
    content: str  # the name of a file beside the proposal
    before: str | None  # SHA-256 of what is replaced; None: there is no file
    after: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is done when the proposal is applied: live settings (docs/operating/live-settings.md) and files."""

    settings: dict[str, Any] = {}
    was: dict[str, Any] = {}  # what some of these were when it was proposed: where one is another now, it is refused
    files: tuple[FileChange, ...] = ()


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    """What brings back what there was before it was applied."""

    settings: dict[str, Any] = {}  # those that had been set live before, with their values then
    unset: tuple[str, ...] = ()  # those that had not
    revision: int | None = None  # of the live settings, made by applying it; None: it is not known to be applied


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that became of a proposal."""

    at: str
    state: State
    author: str = msgspec.field(name="by")
    note: _Words = ""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the proposals' folder."""

    id: str
    created_at: str
    kind: Kind
    reason: _Words  # one sentence
    evidence: dict[str, Any] = {}
    change: Change | None = None  # None: people do it, as `reason` and `evidence` say
    undo: Undo | None = None
    state: State = "open"
    author: _Words = msgspec.field(name="by")  # the command that made it
    history: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        if not is_id(self.id):
            raise ValueError(f"id must be as 20261130-014500-threshold-0123abcd, got {self.id[:80]!r}")


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def new_proposal(
    kind: Kind, reason: str, *, at: str, author: str, evidence: dict[str, Any], change: Change | None = None
) -> Proposal:
    """Return an open proposal; `at`: an ISO time in UTC, as 2026-11-30T01:45:00Z."""
    content = msgspec.json.encode([kind, reason, at, author, change], order="sorted")
    day, clock = at[:10].replace("-", ""), at[11:19].replace(":", "")
    return Proposal(
        id=f"{day}-{clock}-{kind}-{hashlib.sha256(content).hexdigest()[:8]}",
        created_at=at,
        kind=kind,
        reason=reason,
        evidence=evidence,
        change=change,
        author=author,
    )


def moved(proposal: Proposal, state: State, *, at: str, author: str, note: str = "") -> Proposal:
    """Return the proposal in another state, or once more in the same one."""
    event = Event(at=at, state=state, author=author, note=note)
    return msgspec.structs.replace(proposal, state=state, history=(*proposal.history, event))


def is_same(proposal: Proposal, other: Proposal) -> bool:
    """Tell whether both would change the same, as far as they change anything."""
    return is_alike(proposal, other) and proposal.change == other.change


def is_alike(proposal: Proposal, other: Proposal) -> bool:
    """Tell whether both are of one command, kind and subject: the later one then stands for both."""
    return (proposal.kind, proposal.author, _subject(proposal)) == (other.kind, other.author, _subject(other))


def _subject(proposal: Proposal) -> tuple[str, ...]:
    change = proposal.change or Change()
    return (*sorted(change.settings), *(file.path for file in change.files))
