"""tests/chaos/history.py: a checker that finds nothing must be shown to find what is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.history import History, Record, Seen, contradictions
from tests.chaos.orders import Door, Order

ORDER = Order(
    number=7,
    door=Door.JOBS,
    body={"model": "smollm2", "prompt": "n000007 aa", "max_tokens": 3},
    headers={"Idempotency-Key": "key-7"},
)
DONE = Seen(by="redis", state="finished", text="n000007 aa n000007", tier="int4", attempts=1)
RECORD = Record(job_id="a", status="finished", outcome=DONE, fence=1, uncharged=0, content=b'{"text":"n000007 aa"}')


@pytest.fixture
def history() -> History:
    history = History()
    history.begin(ORDER)
    history.accepted(ORDER, "a")
    history.saw("a", replace(DONE, by="intake", tier=None))
    return history


def found(history: History, *records: Record) -> list[str]:
    return [line.split(":")[0] for line in contradictions(history, {its.job_id: its for its in records}, 3)]


def test_a_history_that_can_be_true_is_not_complained_about(history: History) -> None:
    assert found(history, RECORD) == []


def test_a_job_that_is_gone_or_never_ended_is_lost(history: History) -> None:
    assert found(history) == ["LOST"]
    assert found(history, replace(RECORD, status="started", outcome=None)) == ["LOST", "UNENDED"]


def test_two_readers_who_saw_different_ends_contradict_each_other(history: History) -> None:
    history.saw("a", replace(DONE, by="other", attempts=2))

    assert found(history, RECORD) == ["CHANGED"]


@pytest.mark.parametrize(
    ("outcome", "fence"),
    [
        (replace(DONE, text="n000008 aa n000008"), 1),
        (replace(DONE, state="expired", text=None), 1),
        (replace(DONE, state="cancelled", text=None), 1),
        (replace(DONE, state="failed", text=None, code="worker_defect"), 1),
    ],
)
def test_an_end_that_the_job_does_not_explain_is_wrong(outcome: Seen, fence: int) -> None:
    history = History()
    history.begin(ORDER)
    history.accepted(ORDER, "a")

    assert found(history, replace(RECORD, outcome=outcome, fence=fence)) == ["WRONG"]


def test_attempts_must_be_in_bounds_and_agree_with_the_fence(history: History) -> None:
    assert found(history, replace(RECORD, fence=2)) == ["ATTEMPTS"]
    assert found(history, replace(RECORD, fence=5, uncharged=1)) == ["ATTEMPTS", "ATTEMPTS"]
    assert found(history, replace(RECORD, fence=2, uncharged=1)) == []


def test_a_key_belongs_to_one_job(history: History) -> None:
    second = replace(RECORD, job_id="b")
    assert found(history, RECORD, second) == ["TWICE"]

    history.accepted(ORDER, "b")
    assert found(history, RECORD, second) == ["TWICE", "TWICE"]


def test_an_intake_that_does_not_know_an_accepted_job_is_heard(history: History) -> None:
    history.did_not_find("a", "intake")

    assert found(history, RECORD) == ["UNKNOWN"]


def test_an_outcome_without_an_id_must_be_one_of_its_mark_s_jobs(history: History) -> None:
    history.ran(ORDER, DONE)
    assert found(history, RECORD) == []

    history.ran(ORDER, replace(DONE, text="something else"))
    assert found(history, RECORD) == ["CHANGED"]
