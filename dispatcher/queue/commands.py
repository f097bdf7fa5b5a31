"""What each script is called with, and how its answer reads: no I/O, so sync and async clients share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.contract import Claimed, Outcome, State, Submission, encode_call, encode_outcome
from dispatcher.errors import ConflictError, QueueFullError
from dispatcher.sections import Settings

# RQ's words for the ends of a job; an expired job is a failed one to RQ's tools.
RQ_STATUS = {
    State.FINISHED: "finished",
    State.FAILED: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "canceled",
}


Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Call:
    """One EVALSHA."""

    script: str
    keys: Sequence[str]
    args: Sequence[Argument]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One job's end on its way to Redis."""

    job: Claimed
    outcome: Outcome
    return_value: str = ""  # base64 of JSON, for jobs enqueued by RQ


def submit_call(settings: Settings, job: Submission) -> Call:
    """Build the call of submit.lua."""
    model, tier, lane = job.queue.split(":")[:3]
    ladder = settings.model(job.model).ladder
    climbs = lane in settings.lanes.overflow
    higher = ladder[ladder.index(tier) + 1 :]
    idempotency = f"bl:idem:{model}:{job.idempotency_key}" if job.idempotency_key else ""
    keys = [
        f"rq:job:{job.job_id}",
        f"rq:queue:{job.queue}",
        "rq:queues",
        f"bl:wake:{model}:{tier}",
        idempotency,
        *(f"bl:wake:{model}:{name}" for name in higher),
    ]
    request = job.request
    # RQ's default description holds the arguments, and with them the prompt; ours does not.
    description = f"{request.endpoint} {model} floor={request.floor} reason={request.reason}"
    deadline_ms = job.deadline_ms or settings.queue.max_wait_s * 1000
    args: list[Argument] = [
        job.job_id,
        encode_call(request),
        description,
        job.queue,
        settings.queue.max_depth,
        deadline_ms,
        settings.queue.result_ttl_s * 1000,
        job.reply_to,
        job.fingerprint,
        settings.model(model).tier(tier).high if climbs else 0,
    ]
    return Call("submit", keys, args)


def read_submitted(answer: list[bytes], job: Submission) -> str:
    """Return the id under which the job is stored: its own, or that of the first one with its idempotency key.

    Raises:
        QueueFullError: the queue is at its limit.
        ConflictError: the idempotency key belongs to another body.

    """
    word, job_id = answer[0].decode(), answer[1].decode()
    if word == "full":
        raise QueueFullError(f"queue {job.queue} is full ({int(answer[2])} jobs wait)", retry_after_s=5)
    if word == "mismatch":
        raise ConflictError("the Idempotency-Key was used with another request body", param="Idempotency-Key")
    return job_id


def read_claimed(answer: list[bytes | int | list[list[bytes | int]]]) -> tuple[list[Claimed], int]:
    """Return the claimed jobs and how many were dropped because their deadline had passed."""
    now, expired, rows = answer
    assert isinstance(rows, list)  # noqa: S101  (the script's last field is a list)
    return [_claimed(row, int(now)) for row in rows], int(expired)  # type: ignore[arg-type]  # bytes of digits


def _claimed(row: list[bytes | int], now: int) -> Claimed:
    job_id, data, queue, attempt, fence, at, deadline = row
    assert isinstance(job_id, bytes)  # noqa: S101  (strings come as bytes)
    assert isinstance(data, bytes)  # noqa: S101
    assert isinstance(queue, bytes)  # noqa: S101
    return Claimed(
        job_id=job_id.decode(),
        queue=queue.decode(),
        data=data,
        attempt=int(attempt),
        fence=int(fence),
        enqueued_ms=int(at),
        deadline_ms=int(float(deadline)) if deadline else None,
        claimed_ms=now,
    )


def finish_call(worker: str, ttl_ms: int, jobs: Sequence[Finished]) -> Call:
    """Build the call of finish.lua."""
    args: list[Argument] = [worker, ttl_ms]
    for item in jobs:
        job, outcome = item.job, item.outcome
        status = RQ_STATUS[outcome.state]
        args += [job.job_id, job.queue, job.fence, status, encode_outcome(outcome), item.return_value]
    return Call("finish", [f"bl:inflight:{worker}"], args)
