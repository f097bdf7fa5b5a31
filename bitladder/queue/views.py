"""How jobs, queues and chunks read, as Redis has them: no I/O."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitladder.contract import DEFAULT_TENANT, Chunk, JobView, Outcome, Request, State, decode_call
from bitladder.queue.ends import MAX_NUMBER, Ended, Running, short
from bitladder.queue.signing import Signer

# A job of RQ's own producers is compressed; more than this after inflating is refused, not read.
MAX_DATA_BYTES = 16 * 1024 * 1024

# Queues that no tier serves are shown with so many characters of their names.
MAX_NAME = 200

# The fields of a job hash that a view is made of.
VIEWED = ("status", "origin", "wait", "fence", "uncharged", "worker_name", "outcome", "data", "tenant")

STATE_OF_STATUS = {
    "queued": State.QUEUED,
    "started": State.RUNNING,
    "canceled": State.CANCELLED,
    "stopped": State.CANCELLED,
    "finished": State.FINISHED,
    "failed": State.FAILED,
}

# RQ's other words for jobs that wait; '': the record has no status, which the next claim of it ends.
_WAITING = ("", "created", "deferred", "scheduled", "rate_limited", "ready_to_enqueue")

# What is told to whoever awaits a job that is not there any more.
LOST = Outcome(
    state=State.FAILED,
    status=500,
    code="job_lost",
    error="the job's record is gone: it was deleted, or Redis was emptied; whether the job ran is not known",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """One queue as /v1/queues shows it."""

    queue: str
    depth: int
    in_flight: int
    oldest_age_s: float | None  # None: nothing waits, or its time is unknown
    problem: str = ""  # what is wrong with the list in Redis, where it is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Depths:
    """All queues of one model, and the live workers of each tier."""

    live: Mapping[str, int]
    queues: Sequence[Depth]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A queue of RQ's that no tier serves."""

    queue: str
    depth: int
    workers: int  # of RQ's own, or of tiers that there are no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What holds for all models."""

    is_suspended: bool  # claims pause: somebody said `rq suspend`
    unknown: Sequence[Unknown]  # the deepest first


def inflate(data: bytes) -> bytes:
    """Return `data` of a job hash as text: RQ's producers compress it, ours do not.

    Raises:
        ValueError: it inflates to more than MAX_DATA_BYTES.

    """
    if data[:1] == b"[":
        return data
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, MAX_DATA_BYTES)
    except zlib.error:
        return data
    if inflater.unconsumed_tail:
        raise ValueError(f"the call must inflate to at most {MAX_DATA_BYTES} bytes")
    return text


def read_request(data: bytes) -> Request | None:
    """Return the request of a job hash, or None where it is not one of ours."""
    try:
        return decode_call(inflate(data))
    except ValueError:
        return None


def read_depth(name: str, row: list[Any], now: int) -> Depth:
    depth, in_flight, at, problem = row
    age_s = max(0.0, (now - int(float(at))) / 1000) if float(at or 0) else None
    return Depth(
        queue=name,
        depth=int(depth),
        in_flight=int(in_flight),
        oldest_age_s=age_s if depth else None,
        problem=problem.decode(errors="replace"),
    )


def read_overview(answer: list[Any]) -> Overview:
    is_suspended, rows = answer
    unknown = [
        Unknown(queue=name.decode(errors="replace")[:MAX_NAME], depth=int(depth), workers=int(workers))
        for name, depth, workers in rows
    ]
    return Overview(is_suspended=bool(is_suspended), unknown=sorted(unknown, key=lambda one: (-one.depth, one.queue)))


def read_chunk(entry: bytes, data: bytes) -> Chunk:
    fence, _, number = entry.partition(b"-")
    return Chunk(fence=int(fence), number=int(number), data=data)


def read_number(raw: bytes | float | None) -> int | None:
    """Read a whole number from a field that anybody may have written; None for everything else."""
    try:
        number = int(float(raw or b""))
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= MAX_NUMBER else None


def read_end(job_id: str, status: str, stored: bytes | None, signer: Signer) -> Outcome | None:
    """Return how a job ended, None where it has not. Ours end with an outcome; RQ's tools end them without one."""
    if stored:
        return signer.decode_stored(job_id, stored)
    if status in _WAITING:
        return None
    state = STATE_OF_STATUS.get(status)
    if state is None:
        return _odd_status(status)
    if not state.is_terminal:
        return None
    if state is State.CANCELLED:
        return Outcome(state=state, status=409, code="cancelled", error="the job was cancelled by one of RQ's tools")
    error = (
        f"the job's record says {status!r} without an outcome: it was taken or ended by something else than a worker"
    )
    return Outcome(state=State.FAILED, status=500, code="ended_elsewhere", error=error)


def _odd_status(status: str) -> Outcome:
    """Return what there is to say of a job whose record has a status that neither RQ nor we write."""
    error = (
        f"the status in the job's record is none of RQ's, got {short(status)!r}: something else than a worker wrote it"
    )
    return Outcome(state=State.FAILED, status=500, code="corrupt_job", error=error)


def read_look(job_id: str, word: bytes, detail: bytes, signer: Signer) -> Outcome | Ended | Running | None:
    """Read what look.lua says of one job; None: it waits."""
    if word == b"over":
        return Ended()
    if word == b"gone":
        return LOST
    if word == b"runs":
        return Running(fence=read_number(detail) or 0)
    if word == b"odd":
        return _odd_status(detail.decode(errors="replace"))
    return None if word == b"waits" else read_end(job_id, word.decode(), detail, signer)


def read_wait(raw: bytes | None) -> tuple[int | None, int | None, int | None]:
    """Read a job's field `wait`: when it was enqueued, its deadline, and its number in its list."""
    enqueued, deadline, number = ((raw or b"").split(b" ") + [b""] * 3)[:3]
    return read_number(enqueued), read_number(deadline), read_number(number)


def read_view(job_id: str, fields: Mapping[str, bytes | None], left: int | None, signer: Signer) -> JobView:
    """Return a job as its hash has it; `left` is how many of its list, up to it, wait no longer."""
    status = (fields["status"] or b"").decode(errors="replace")
    outcome = read_end(job_id, status, fields["outcome"], signer)
    enqueued_ms, deadline_ms, place = read_wait(fields["wait"])
    return JobView(
        job_id=job_id,
        state=outcome.state if outcome else STATE_OF_STATUS.get(status, State.QUEUED),
        queue=_word(fields["origin"]),
        enqueued_ms=enqueued_ms or 0,
        attempts=(read_number(fields["fence"]) or 0) - (read_number(fields["uncharged"]) or 0),
        request=read_request(fields["data"] or b""),
        deadline_ms=deadline_ms,
        worker=_word(fields["worker_name"]) or None,
        outcome=outcome,
        tenant=(fields["tenant"] or b"").decode(errors="replace") or DEFAULT_TENANT,
        position=None if place is None or left is None else max(1, place - left),
    )


def _word(raw: bytes | None) -> str:
    return short((raw or b"").decode(errors="replace"))


def is_odd_type(answer: object) -> bool:
    """Return whether this is Redis' answer about a record that is no hash."""
    return isinstance(answer, Exception) and str(answer).startswith("WRONGTYPE")


def odd_view(job_id: str) -> JobView:
    """Return what there is to see of a job whose record is no hash: it never ran."""
    error = "the job's record is no hash: whoever wrote it is no producer of jobs"
    outcome = Outcome(state=State.FAILED, status=500, code="corrupt_job", error=error)
    return JobView(
        job_id=job_id, state=outcome.state, queue="", enqueued_ms=0, attempts=0, request=None, outcome=outcome
    )
