"""bitladder/decision.py: decisions in jobs and outcomes, and those of records from before there were any."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bitladder.contract import Outcome, Request, State, decode_outcome, encode_outcome
from bitladder.decision import UNDECIDED, Decision, Score, describe_decision
from bitladder.queue.stored_outcome import read_outcome
from bitladder.queue.untrusted import MAX_WORD_CHARS
from bitladder.rq_call import decode_call, encode_call
from tests.conftest import ROOT

# Hashes of jobs as they lay in Redis before, and what GET /v1/jobs/{id} said of each.
OLD: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/bitladder/records_before_decisions.json").read_bytes())
DECISION = Decision(policy="article", version=1, floor="int4", reason="entropy 1.52 <= 4.5", score=Score(entropy=1.52))


@pytest.mark.parametrize("name", [name for name, record in OLD.items() if '"body"' in record["data"]])
def test_the_decision_on_an_old_job_is_read(name: str) -> None:
    decision = decode_call(OLD[name]["data"].encode()).decision

    assert describe_decision(decision) == OLD[name]["shown"] | {
        "policy": None,
        "features": {"entropy": OLD[name]["shown"]["entropy"]},
    }


@pytest.mark.parametrize("name", [name for name, record in OLD.items() if "outcome" in record])
def test_the_decision_in_an_old_outcome_is_read(name: str) -> None:
    old = describe_decision(read_outcome(OLD[name]["outcome"].encode()).decision)

    assert {part: old[part] for part in OLD[name]["shown"]} == OLD[name]["shown"]
    assert old["policy"] is None


def test_the_length_of_an_old_stream_is_read() -> None:
    old = b'{"state":"finished","status":200,"body":{},"tier":"int4","floor":"int4","reason":"x","pieces":3,"fence":7}'

    assert read_outcome(old).chunks == 3
    assert decode_outcome(old).chunks == 3


def test_a_decision_comes_back_with_its_job_and_its_outcome() -> None:
    request = Request(body=msgspec.Raw(b"{}"), decision=DECISION)
    outcome = Outcome(state=State.FINISHED, status=200, decision=DECISION)

    assert decode_call(encode_call(request)).decision == DECISION
    assert read_outcome(encode_outcome(outcome)) == outcome
    assert decode_outcome(encode_outcome(outcome)).decision == DECISION
    assert (outcome.floor, outcome.reason) == ("int4", "entropy 1.52 <= 4.5")


def test_a_producer_s_job_is_not_decided_on_and_its_own_words_are_read() -> None:
    def call(**fields: str) -> bytes:
        return msgspec.json.encode(("workers.generate", None, (), {"body": {}, **fields}))

    assert decode_call(call()).decision == UNDECIDED
    assert decode_call(call(reason="cheap", floor="int8")).decision == Decision(floor="int8", reason="cheap")
    with pytest.raises(ValueError, match="entropy"):
        decode_call(call(entropy="high"))


def test_a_version_that_reads_decisions_passes_over_what_a_later_one_adds() -> None:
    later = ["learned", 3, "int8", "risk 0.05", {"charm": 0.5, "digits": 0.1}, {"risk": 0.05}]
    data = msgspec.json.encode({"state": "finished", "status": 200, "decision": later})

    assert read_outcome(data).decision == Decision(
        policy="learned", version=3, floor="int8", reason="risk 0.05", score=Score(digits=0.1)
    )


def test_forged_decisions_are_cut_or_refused() -> None:
    def outcome(*decision: object) -> bytes:
        return msgspec.json.encode({"state": "finished", "status": 200, "decision": decision})

    cut = read_outcome(outcome("p" * 5000, 1, "f" * 5000, "r" * 5000)).decision

    assert cut is not None
    assert {len(word) for word in (cut.policy, cut.floor, cut.reason)} == {MAX_WORD_CHARS + 1}
    for wrong in (["p", 2**60], ["p", -1], ["p", 1, 4], ["p", 1, "int4", "why", {"entropy": "x"}]):
        with pytest.raises(ValueError, match=r"version|Expected"):
            read_outcome(outcome(*wrong))
