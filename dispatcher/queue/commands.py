"""What each script is called with, and how its answer reads: no I/O, so sync and async clients share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dispatcher.contract import Claimed, Outcome, State, Submission, encode_call, encode_outcome
from dispatcher.errors import BitladderError, ConflictError, QueueFullError
from dispatcher.sections import Settings

# RQ's words for the ends of a job; an expired job is a failed one to RQ's tools.
RQ_STATUS = {
    State.FINISHED: "finished",
    State.FAILED: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "canceled",
}


Argument = str | bytes | int | float
# Jobs with their places among those that were submitted together.
Placed = list[tuple[int, Submission]]


class Call(msgspec.Struct, frozen=True):
    """One EVALSHA."""

    script: str
    keys: Sequence[str]
    args: Sequence[Argument]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One job's end on its way to Redis."""

    job: Claimed
    outcome: Outcome
    return_value: str = ""  # base64 of JSON, for jobs enqueued by RQ


def submit_call(settings: Settings, queue: str, jobs: Sequence[Submission]) -> Call:
    """Build the call of submit.lua for jobs of one queue."""
    model, tier, lane = queue.split(":")[:3]
    ladder = settings.model(model).ladder
    climbs = lane in settings.lanes.overflow
    keys = [
        f"rq:queue:{queue}",
        f"bl:counts:{queue}",
        "rq:queues",
        *(f"bl:wake:{model}:{name}" for name in ladder[ladder.index(tier) :]),
    ]
    high = settings.model(model).tier(tier).high if climbs else 0
    args: list[Argument] = [model, queue, settings.queue.max_depth, high, settings.queue.result_ttl_s * 1000]
    longest_ms = settings.queue.max_wait_s * 1000
    for job in jobs:
        request = job.request
        args += (
            job.job_id,
            encode_call(request),
            # RQ's default description holds the arguments, and with them the prompt; ours does not.
            f"{request.endpoint}: {request.reason}",
            job.deadline_ms or longest_ms,
            job.reply_to,
            job.idempotency_key,
            job.fingerprint,
        )
    return Call("submit", keys, args)


def by_queue(placed: Iterable[tuple[int, Submission]]) -> dict[str, Placed]:
    """Group numbered jobs by their queue: each group goes with one call."""
    groups: dict[str, Placed] = {}
    for place, job in placed:
        groups.setdefault(job.queue, []).append((place, job))
    return groups


def read_submitted(answer: Sequence[Any], job: Submission) -> str | BitladderError:
    """Return the id under which the job is stored, its own or that of the first one with its key, or why it is not."""
    word, job_id = answer[0], answer[1].decode()
    if word == b"full":
        return QueueFullError(f"queue {job.queue} is full ({int(answer[2])} jobs wait)", retry_after_s=5)
    if word == b"mismatch":
        return ConflictError("the Idempotency-Key was used with another request body", param="Idempotency-Key")
    return str(job_id)


def claim_call(settings: Settings, worker: str, model: str, tier: str, plan: str, slots: int) -> Call:
    """Build the call of claim.lua."""
    keys = ["bl:workers", f"bl:inflight:{worker}", f"bl:turn:{model}:{tier}", f"bl:wake:{model}:{tier}"]
    lease_ms, ttl_ms = int(settings.queue.lease_s * 1000), settings.queue.result_ttl_s * 1000
    return Call("claim", keys, [worker, slots, lease_ms, plan, ttl_ms])


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
