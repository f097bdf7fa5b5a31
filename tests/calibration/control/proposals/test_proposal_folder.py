"""Proposals as files: one stands for what is proposed again, and what is no proposal is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from calibration.control.proposals.applying import apply, dismiss, undo
from calibration.control.proposals.proposal import Change, FileChange, Proposal, new_proposal
from calibration.control.proposals.proposal_folder import ProposalStore, file_digest
from calibration.errors import InputError, ProposalRefusedError
from tests.conftest import ROOT

AT = "2026-11-30T01:45:00Z"


@pytest.fixture
def store(tmp_path: Path) -> ProposalStore:
    return ProposalStore(tmp_path / "proposals")


def threshold(limit: float, at: str = AT) -> Proposal:
    change = Change(settings={"policies.loss.limit": limit})
    return new_proposal("threshold", f"limit {limit}", at=at, author="drift", evidence={"n": limit}, change=change)


def test_what_is_proposed_again_is_noted_once_in_the_open_proposal(store: ProposalStore) -> None:
    first = store.add(threshold(0.1))

    for minute in range(46, 49):
        later = msgspec.structs.replace(threshold(0.1, f"2026-11-30T01:{minute}:00Z"), reason=f"seen at {minute}")
        assert store.add(later).id == first.id

    (kept,), problems = store.all()
    assert (kept.reason, kept.state, len(kept.history), problems) == ("seen at 48", "open", 1, [])


def test_another_value_of_the_same_settings_stands_for_the_open_proposal(store: ProposalStore) -> None:
    first = store.add(threshold(0.1))

    second = store.add(threshold(0.2, "2026-11-30T01:50:00Z"))
    labels = store.add(new_proposal("labels", "label anew", at=AT, author="drift", evidence={}))

    assert {item.id: item.state for item in store.all()[0]} == {
        first.id: "dismissed",
        second.id: "open",
        labels.id: "open",
    }
    assert second.id in store.read(first.id).history[-1].note


def test_a_damaged_file_is_named_and_hides_no_other(store: ProposalStore) -> None:
    kept = store.add(threshold(0.1))
    other_id = kept.id[:-1] + ("0" if kept.id[-1] != "0" else "1")
    contents = {"cut.json": b'{"id": "20', f"{other_id}.json": (store.folder / f"{kept.id}.json").read_bytes()}
    for name, content in contents.items():
        (store.folder / name).write_bytes(content)

    proposals, problems = store.all()

    assert [item.id for item in proposals] == [kept.id]
    assert len(problems) == 2
    assert any("cut.json: no proposal" in problem for problem in problems)
    assert any(f"it says that its id is {kept.id}" in problem for problem in problems)
    for proposal_id in ("../../etc/passwd", "", other_id[:-8] + "ffffffff"):
        with pytest.raises(InputError, match="there is no proposal"):
            store.read(proposal_id)


def test_one_that_changes_nothing_by_itself_is_not_applied_and_may_be_dismissed(store: ProposalStore) -> None:
    labels = store.add(new_proposal("labels", "label 300 prompts", at=AT, author="drift", evidence={}))
    limit = store.add(threshold(0.1))

    with pytest.raises(InputError, match="changes nothing by itself: label 300 prompts"):
        apply(store, labels.id, None, at=AT, author="ann")
    with pytest.raises(InputError, match=r"live settings .policies\.loss\.limit.: name an intake with --url"):
        apply(store, limit.id, None, at=AT, author="ann")
    assert dismiss(store, labels.id, None, at=AT, author="ann", note="a load test").history[-1].author == "ann"
    with pytest.raises(InputError, match="is dismissed, expected one that is open"):
        dismiss(store, labels.id, None, at=AT, author="ann")


def replacing(store: ProposalStore, policy: Path, content: bytes) -> Proposal:
    """Propose another content of a file."""
    store.folder.mkdir(exist_ok=True)
    store.keep("new", content)
    digest = file_digest(store.folder / "new")
    assert digest
    file = FileChange(path=str(policy), content="new", before=file_digest(policy), after=digest)
    return store.add(
        new_proposal("promote", "a new fit", at=AT, author="loop", evidence={}, change=Change(files=(file,)))
    )


@pytest.mark.parametrize("before", [b"old", None])
def test_a_file_is_replaced_and_brought_back_byte_for_byte(
    before: bytes | None, store: ProposalStore, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    if before is not None:
        policy.write_bytes(before)
    proposal = replacing(store, policy, b"new")

    assert apply(store, proposal.id, None, at=AT, author="ann").state == "applied"
    assert policy.read_bytes() == b"new"
    assert undo(store, proposal.id, None, at=AT, author="ann").state == "undone"
    assert (policy.read_bytes() if policy.exists() else None) == before


def test_a_file_that_somebody_else_changed_is_left_alone(store: ProposalStore, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_bytes(b"old")
    proposal = replacing(store, policy, b"new")

    policy.write_bytes(b"theirs")
    with pytest.raises(ProposalRefusedError, match="is not what it was when this was proposed; nothing was changed"):
        apply(store, proposal.id, None, at=AT, author="ann")
    policy.write_bytes(b"old")
    apply(store, proposal.id, None, at=AT, author="ann")
    policy.write_bytes(b"theirs")

    with pytest.raises(ProposalRefusedError, match=r"somebody else has changed .* since; nothing was changed"):
        undo(store, proposal.id, None, at=AT, author="ann")
    assert (policy.read_bytes(), store.read(proposal.id).state) == (b"theirs", "applied")


def test_the_page_shows_a_file_as_it_is_read() -> None:
    page = (ROOT / "docs" / "calibration" / "proposals.md").read_text(encoding="utf-8")
    block = re.search(r"^```json\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    assert block

    shown = msgspec.json.decode(block[1], type=Proposal)

    assert msgspec.json.decode(block[1]) == json.loads(msgspec.json.encode(shown))  # with every field
