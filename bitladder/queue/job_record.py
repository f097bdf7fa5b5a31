"""How a job's record in Redis reads: no I/O."""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Mapping

import msgspec

from bitladder.contract import Chunk, JobView, Labels, Outcome, Request, State
from bitladder.errors import GoneError, NotFoundError
from bitladder.ids import readable
from bitladder.queue.signing import Signer
from bitladder.queue.untrusted import MAX_QUEUE_CHARS, MAX_WORD_CHARS, read_number, short
from bitladder.queue_name import DEFAULT_TENANT
from bitladder.rq_call import decode_call

# A job of RQ's own producers is compressed; more than this after inflating is refused, not read.
MAX_DATA_BYTES = 16 * 1024 * 1024

# The fields of a job hash that a view is made of.
VIEWED = ("status", "origin", "wait", "fence", "uncharged", "worker_name", "outcome", "data", "tenant", "labels")

_STATE_OF_STATUS = {
    "queued": State.QUEUED,
    "started": State.RUNNING,
    "canceled": State.CANCELLED,
    "stopped": State.CANCELLED,
    "finished": State.FINISHED,
    "failed": State.FAILED,
}

# RQ's other words for jobs that wait; '': the record has no status, which the next claim of it ends.
_WAITING = ("", "created", "deferred", "scheduled", "rate_limited", "ready_to_enqueue")

# The outcome of a job whose record is gone.
LOST = Outcome(
    state=State.FAILED,
    status=500,
    code="job_lost",
    error="the job's record is gone: it was deleted, or Redis was emptied; whether the job ran is not known",
)


# As text.
_UUID_CHARS = 36
# More than routing/notes.py lets through, in JSON of any form.
_MAX_LABELS_BYTES = 64 * 1024
_decode_labels = msgspec.json.Decoder(Labels).decode


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An execution is under way; nothing else is known of it."""

    fence: int


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A job has ended, and its outcome is too large for a message: it is to be read from the record."""


# What a waiter may receive about a job.
Item = Chunk | Outcome | Running | Ended


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


def _read_request(data: bytes) -> Request | None:
    """Return the request of a job hash, or None where it is not one of ours."""
    try:
        return decode_call(inflate(data))
    except ValueError:
        return None


def read_end(job_id: str, status: str, stored: bytes | None, signer: Signer) -> Outcome | None:
    """Return how a job ended, None where it has not. We end jobs with an outcome, RQ's tools without one."""
    if stored:
        return signer.decode_stored(job_id, stored)
    if status in _WAITING:
        return None
    state = _STATE_OF_STATUS.get(status)
    if state is None:
        return odd_status(status)
    if not state.is_terminal:
        return None
    if state is State.CANCELLED:
        return Outcome(state=state, status=409, code="cancelled", error="the job was cancelled by one of RQ's tools")
    error = (
        f"the job's record says {status!r} without an outcome: it was taken or ended by something else than a worker"
    )
    return Outcome(state=State.FAILED, status=500, code="ended_elsewhere", error=error)


def odd_status(status: str) -> Outcome:
    """Return the outcome of a job whose record has a status that neither RQ nor we write."""
    error = (
        f"the status in the job's record is none of RQ's, got {short(status)!r}: something else than a worker wrote it"
    )
    return Outcome(state=State.FAILED, status=500, code="corrupt_job", error=error)


def read_wait(raw: bytes | None) -> tuple[int | None, int | None, int | None]:
    """Read a job's field `wait`: when it was enqueued, its deadline (both in ms), and its number in its list."""
    enqueued, deadline, number = ((raw or b"").split(b" ") + [b""] * 3)[:3]
    return read_number(enqueued), read_number(deadline), read_number(number)


def waits_in_tenants_list(raw: bytes | None) -> bool:
    """Return whether a job's field `wait` says that it waits in its tenant's list."""
    return raw is not None and raw.endswith(b" t")


def state_of(status: str) -> State:
    """Return the state that RQ's word for it means: what is none of its ends waits."""
    return _STATE_OF_STATUS.get(status, State.QUEUED)


def read_view(
    job_id: str, fields: Mapping[str, bytes | None], left: int | None, signer: Signer, tenants: int = 1
) -> JobView:
    """Return a job as its hash has it; `left`: how many ids before it in its list wait no longer."""
    status = (fields["status"] or b"").decode(errors="replace")
    outcome = read_end(job_id, status, fields["outcome"], signer)
    enqueued_ms, deadline_ms, place = read_wait(fields["wait"])
    return JobView(
        job_id=job_id,
        state=outcome.state if outcome else state_of(status),
        queue=_word(fields["origin"], MAX_QUEUE_CHARS),
        enqueued_ms=enqueued_ms or 0,
        attempts=(read_number(fields["fence"]) or 0) - (read_number(fields["uncharged"]) or 0),
        request=_read_request(fields["data"] or b""),
        deadline_ms=deadline_ms,
        worker=_word(fields["worker_name"]) or None,
        outcome=outcome,
        tenant=(fields["tenant"] or b"").decode(errors="replace") or DEFAULT_TENANT,
        position=None if place is None or left is None else max(1, place - left),
        tenants=tenants,
        labels=read_labels(fields["labels"]),
    )


def read_labels(raw: bytes | None) -> Labels | None:
    """Return what a client has noted on its job; what is none of our writing is ignored."""
    if not raw or len(raw) > _MAX_LABELS_BYTES:
        return None
    try:
        return _decode_labels(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def missing(job_id: str, ttl_s: float) -> NotFoundError | GoneError:
    """Return the error for an id without a record: our ids carry their time, so that an expired one is known."""
    try:
        parsed = uuid.UUID(job_id[:_UUID_CHARS])  # a batch's jobs have its id before their numbers
    except ValueError:
        return NotFoundError(f"there is no job {readable(job_id)!r}", param="id")
    made_s = (parsed.int >> 80) / 1000
    if parsed.version == 7 and made_s < time.time() - ttl_s:
        return GoneError(f"job {job_id} is no longer stored: outcomes are kept for {ttl_s:g} s", param="id")
    return NotFoundError(f"there is no job {readable(job_id)!r}", param="id")


def _word(raw: bytes | None, max_chars: int = MAX_WORD_CHARS) -> str:
    return short((raw or b"").decode(errors="replace"), max_chars)


def is_odd_type(answer: object) -> bool:
    """Return whether this is Redis' answer for a record that is no hash."""
    return isinstance(answer, Exception) and str(answer).startswith("WRONGTYPE")


def odd_view(job_id: str) -> JobView:
    """Return the view of a job whose record is no hash: it never ran."""
    error = "the job's record is no hash: no producer of jobs wrote it"
    outcome = Outcome(state=State.FAILED, status=500, code="corrupt_job", error=error)
    return JobView(
        job_id=job_id, state=outcome.state, queue="", enqueued_ms=0, attempts=0, request=None, outcome=outcome
    )
