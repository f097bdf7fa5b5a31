"""A job as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bitladder.contract import ExpectedWait, JobView, Outcome, Request, State, Usage
from bitladder.decision import describe_decision
from bitladder.ids import readable
from bitladder.queue.json_views.kinds import Count, Duration, Timestamp
from bitladder.queue.untrusted import MAX_WORD_CHARS, short

Position = Annotated[int, Meta(ge=1, description="While the job waits; 1: next of its list.")]
Wait = Annotated[int, Meta(ge=0, description="While the job waits: in how long it is expected to be claimed.")]
_INTERVAL = "Low and high: by the measured error, four of five jobs are claimed in between."
WaitInterval = Annotated[tuple[int, int], Meta(description=_INTERVAL)]
Text = Annotated[str | None, Meta(description="Of a streamed job: its first choice's text.")]
Policy = Annotated[str | None, Meta(description="The policy that chose the floor, and its version.")]
Features = Annotated[dict[str, float], Meta(description="The features of the prompt that the policy read, by name.")]
_CONFIDENCE = "Of an answer that a cascade has judged: how likely it is as good as the reference's."
Confidence = Annotated[float | None, Meta(description=_CONFIDENCE)]
_RESULT = "The engine's JSON answer, of a stream what its chunks make up; null where there is none."
Result = Annotated[msgspec.Raw, Meta(description=_RESULT)]


class JobFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job did not finish."""

    message: str
    code: str | None


class JobFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a job; a record that cannot be read has only its id."""

    id: str
    object: Literal["job"] = "job"
    status: State | UnsetType = UNSET
    queue: str | UnsetType = UNSET
    enqueued_at: Timestamp | UnsetType = UNSET
    attempts: Count | UnsetType = UNSET
    worker: str | UnsetType | None = UNSET
    queue_position: Position | UnsetType = UNSET
    expected_wait_ms: Wait | UnsetType = UNSET
    expected_wait_interval_ms: WaitInterval | UnsetType = UNSET
    floor: str | UnsetType | None = UNSET
    ceiling: str | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET
    entropy: float | UnsetType | None = UNSET
    policy: Policy | UnsetType = UNSET
    features: Features | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    tier: str | UnsetType | None = UNSET
    overflowed_from: str | UnsetType | None = UNSET
    served_below_floor: bool | UnsetType = UNSET
    queue_ms: Duration | UnsetType = UNSET
    ttft_ms: float | UnsetType | None = UNSET
    run_ms: Duration | UnsetType = UNSET
    chunks: Count | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    cost: float | UnsetType | None = UNSET
    request_id: str | UnsetType = UNSET
    confidence: Confidence | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    result: Result | UnsetType = UNSET
    error: JobFailure | UnsetType | None = UNSET


class Job(JobFields, frozen=True, kw_only=True):
    """A job; never its prompt. The fields of its outcome are there once it is terminal."""

    status: State
    queue: str
    enqueued_at: Timestamp
    attempts: Count
    worker: str | None


class CancelledJob(Job, frozen=True, kw_only=True):
    """A job, and what became of the request to cancel it."""

    cancellation: Literal["cancelled", "requested", "over", "missing"]


def describe_job(view: JobView, expected: ExpectedWait | None = None) -> Job:
    fields = job_fields(view)
    if expected:
        fields["expected_wait_ms"] = expected.wait_ms
        fields["expected_wait_interval_ms"] = (expected.low_ms, expected.high_ms)
    return Job(**fields)


def describe_cancelled(view: JobView, cancellation: str) -> CancelledJob:
    return CancelledJob(**job_fields(view), cancellation=cancellation)  # type: ignore[arg-type]  # cancel.lua's word


def job_fields(view: JobView) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": readable(view.job_id),
        "status": view.state,
        "queue": view.queue,
        "enqueued_at": view.enqueued_ms / 1000,
        "attempts": view.attempts,
        "worker": view.worker,
    }
    if view.position is not None:
        fields["queue_position"] = view.position
    if view.labels:
        named = {"metadata": view.labels.metadata, "tags": view.labels.tags}
        fields |= {name: value for name, value in named.items() if value}
    if view.request:
        fields |= _request_fields(view.request)
    if view.outcome:
        fields |= _outcome_fields(view.outcome)
    return fields


def _request_fields(request: Request) -> dict[str, Any]:
    return {
        "ceiling": request.ceiling and short(request.ceiling),
        **describe_decision(request.decision.shortened(MAX_WORD_CHARS)),
    }


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    hidden = ("state", "status", "body", "error", "code", "fence", "streamed_by", "decision")
    fields = {name: value for name, value in msgspec.structs.asdict(outcome).items() if name not in hidden}
    fields |= describe_decision(outcome.decision)
    fields["result"] = outcome.body
    if outcome.chunks:
        fields["text"] = outcome.text or _first_text(outcome.answer)
    fields["error"] = JobFailure(message=outcome.error, code=outcome.code) if outcome.error else None
    return fields


class _Choice(msgspec.Struct):
    text: str | None = None
    message: dict[str, Any] = {}


class _Part(msgspec.Struct):
    text: str | None = None


class _Item(msgspec.Struct):
    content: list[_Part] | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    output: list[_Item] = []  # of a response
    content: list[_Part] = []  # of a message


def _first_text(answer: bytes | None) -> str | None:
    """Return the text of a streamed answer's first choice, for clients that want nothing else."""
    try:
        decoded = msgspec.json.decode(answer or b"{}", type=_Answer)
    except msgspec.DecodeError:
        return None
    if choices := decoded.choices:
        text = choices[0].text or choices[0].message.get("content")
        return text if isinstance(text, str) else None
    parts = [*decoded.content, *(part for item in decoded.output for part in item.content or ())]
    return "".join(part.text or "" for part in parts) or None
