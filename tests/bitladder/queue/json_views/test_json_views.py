"""What the HTTP interface and the command line show of jobs: bitladder/queue/json_views."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from bitladder.contract import JobView, Outcome, Request, State, Usage
from bitladder.decision import Decision, Score
from bitladder.queue.dead_letters import DeadLetter, Loss
from bitladder.queue.json_views.dead_letter import describe_dead_letter, describe_history
from bitladder.queue.json_views.job import describe_cancelled, describe_job

DECISION = Decision(policy="article", version=1, floor="int4", reason="entropy", score=Score(entropy=3.2))
REQUEST = Request(body=msgspec.Raw(b'{"model": "m", "prompt": "secret"}'), decision=DECISION)
OUTCOME = Outcome(
    state=State.FINISHED,
    status=200,
    body=msgspec.Raw(b'{"choices": [{"text": "blue"}]}'),
    tier="int8",
    decision=DECISION,
    overflowed_from="int4",
    attempts=2,
    chunks=3,
    fence=7,
    usage=Usage(prompt_tokens=3, completion_tokens=1),
)


def view(**changes: Any) -> JobView:  # noqa: ANN401  (any field)
    fields = {"job_id": "1", "state": State.QUEUED, "queue": "m:int4:normal", "enqueued_ms": 1500, "attempts": 0}
    return JobView(**{**fields, "request": REQUEST, **changes})


def as_json(value: object) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(value))
    return decoded


def test_a_job_that_waits_shows_where_it_was_routed_and_nothing_of_an_outcome() -> None:
    shown = as_json(describe_job(view(position=2)))

    assert shown == {
        "id": "1",
        "object": "job",
        "status": "queued",
        "queue": "m:int4:normal",
        "enqueued_at": 1.5,
        "attempts": 0,
        "worker": None,
        "queue_position": 2,
        "floor": "int4",
        "ceiling": None,
        "reason": "entropy",
        "entropy": 3.2,
        "policy": "article@1",
        "features": {"entropy": 3.2},
    }


def test_a_terminal_job_shows_its_outcome_and_of_a_stream_the_text() -> None:
    shown = as_json(describe_job(view(state=State.FINISHED, outcome=OUTCOME)))

    internal = {"state", "status", "body", "error", "code", "fence", "streamed_by", "decision"}
    assert set(Outcome.__struct_fields__) - internal <= set(shown)
    assert (shown["status"], shown["tier"], shown["attempts"], shown["text"]) == ("finished", "int8", 2, "blue")
    assert shown["result"] == {"choices": [{"text": "blue"}]}
    assert shown["usage"] == {"prompt_tokens": 3, "completion_tokens": 1}
    assert shown["error"] is None
    assert not {"fence", "code", "body"} & set(shown)


def test_a_cancelled_job_says_what_the_cancellation_did() -> None:
    outcome = Outcome(state=State.CANCELLED, status=409, code="cancelled", error="the job was cancelled")

    shown = as_json(describe_cancelled(view(state=State.CANCELLED, outcome=outcome), "cancelled"))

    assert (shown["cancellation"], shown["status"]) == ("cancelled", "cancelled")
    assert shown["error"] == {"message": "the job was cancelled", "code": "cancelled"}


def test_a_dead_letter_without_a_record_shows_what_is_left() -> None:
    job = DeadLetter(at_ms=2000, job_id="1", queue="", code="no_record", view=None)

    assert as_json(describe_dead_letter(job)) == {
        "id": "1",
        "object": "job",
        "dead_lettered_at": 2.0,
        "code": "no_record",
    }


def test_a_dead_letter_with_a_record_shows_the_job_and_every_execution_that_was_lost() -> None:
    job = DeadLetter(at_ms=2000, job_id="1", queue="m:int4:normal", code="poison", view=view(state=State.FAILED))
    unreadable = Loss(at_ms=1000, worker="w", fence=3, outcome=None)

    shown = as_json(describe_history(job, [unreadable]))

    assert (shown["status"], shown["code"], shown["floor"]) == ("failed", "poison", "int4")
    assert shown["history"] == [
        {"at": 1.0, "worker": "w", "execution": 3, "tier": None, "code": None, "error": None},
    ]


def test_no_prompt_is_shown() -> None:
    job = DeadLetter(at_ms=2000, job_id="1", queue="", code="poison", view=view(state=State.FAILED, outcome=OUTCOME))

    assert b"secret" not in msgspec.json.encode([describe_job(view()), describe_dead_letter(job)])
