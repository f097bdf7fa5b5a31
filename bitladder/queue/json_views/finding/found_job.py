"""A job as it is found, without its prompt and its answer: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import msgspec

from bitladder.contract import Labels, Outcome, State
from bitladder.ids import read_id, read_word
from bitladder.queue.job_record import read_end, read_labels, read_wait, waits_in_tenants_list
from bitladder.queue.signing import Signer
from bitladder.queue.untrusted import MAX_QUEUE_CHARS, read_number, short
from bitladder.queue_name import DEFAULT_TENANT, QueueName, list_of
from bitladder.script_constants import BATCH_PREFIX, MAX_ID

_NO_LABELS = Labels()
_IDEM = re.compile(r"[^:]*:[^:]*:(.*)", re.DOTALL)


class FoundJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a list, as its record says it."""

    job_id: str
    state: State
    queue: QueueName
    tier: str  # that serves or served it; of one that never ran: its queue's
    tenant: str
    labels: Labels
    key: str  # its idempotency key; '': it has none
    since_ms: int  # when it came into this state
    created_ms: int | None  # None: its record does not say, here and below
    started_ms: int | None
    ended_ms: int | None
    worker: str | None
    attempts: int
    outcome: Outcome | None  # None: it has not ended, or has finished and its answer was not read

    @property
    def batch(self) -> str | None:
        return batch_of(self.job_id)


class Lying(msgspec.Struct, frozen=True, kw_only=True):
    """Where an entry lies, and what its record must say to be there by right."""

    queue: QueueName
    name: str  # of the list; of a registry: its queue
    is_list: bool = False
    statuses: frozenset[bytes]


def read_found(job_id: str, lying: Lying, values: Mapping[str, bytes], signer: Signer) -> FoundJob | None:
    """Read a job; None where its record says that it is elsewhere, or is none of a job."""
    status = values["status"]
    if status not in lying.statuses or len(job_id) > MAX_ID or not _is_here(lying, values):
        return None
    waited_ms, _, _ = read_wait(values["wait"])
    created_ms = read_time(values["created_at"]) or read_time(values["enqueued_at"]) or waited_ms
    started_ms, ended_ms = read_time(values["started_at"]), read_time(values["ended_at"])
    outcome = None
    if status not in (b"started", b"finished") or values["outcome"]:
        outcome = read_end(job_id, status.decode(errors="replace"), values["outcome"], signer)
    state = outcome.state if outcome else _STATES.get(status, State.QUEUED)
    since_ms = {State.QUEUED: waited_ms or read_time(values["enqueued_at"]) or created_ms, State.RUNNING: started_ms}
    worker = None if state is State.QUEUED else _word(values["worker_name"]) or None
    return FoundJob(
        job_id=job_id,
        state=state,
        queue=lying.queue,
        tier=_tier_of(worker, lying.queue),
        tenant=_word(values["tenant"]) or DEFAULT_TENANT,
        labels=read_labels(values["labels"]) or _NO_LABELS,
        key=_key_of(values["idem"]),
        since_ms=since_ms.get(state, ended_ms) or 0,
        created_ms=created_ms,
        started_ms=None if state is State.QUEUED else started_ms,
        ended_ms=ended_ms if state.is_terminal else None,
        worker=worker,
        attempts=max(0, (read_number(values["fence"]) or 0) - (read_number(values["uncharged"]) or 0)),
        outcome=outcome,
    )


_STATES = {b"started": State.RUNNING, b"finished": State.FINISHED}


def batch_of(job_id: str) -> str | None:
    """Return the batch that a job is a line of."""
    batch_id, dash, line = job_id.rpartition("-")
    return batch_id if dash and line and batch_id.startswith(BATCH_PREFIX) else None


def read_time(raw: bytes) -> int | None:
    """Read one of RQ's timestamps, as ms since 1970; None for everything else."""
    try:
        return int(datetime.fromisoformat(raw.decode("ascii")).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def id_of_member(member: bytes, *, is_running: bool) -> str:
    """Return the id of an entry: RQ's registry of running jobs has `<id>:<fence>`, with %XX for colons."""
    if not is_running:
        return read_id(member)
    job_id, colon, _ = member.rpartition(b":")
    return read_word(job_id if colon else member)


def _is_here(lying: Lying, values: Mapping[str, bytes]) -> bool:
    """Return whether the record says that the job is here: an id may be left where it was before."""
    queue, wait = str(lying.queue), values["wait"]
    if not lying.is_list:
        return _word(values["origin"]) == queue
    if not wait:  # an RQ producer's, which no worker has met
        return True
    tenant = _word(values["tenant"]) if waits_in_tenants_list(wait) else DEFAULT_TENANT
    return _word(values["origin"]) == queue and lying.name == list_of(queue, tenant)


def _key_of(idem: bytes) -> str:
    """Return a client's idempotency key: its model and its tenant stand before it."""
    match = _IDEM.fullmatch(_word(idem, MAX_ID))
    return match[1] if match else ""


def _tier_of(worker: str | None, queue: QueueName) -> str:
    """Return the tier of a worker: its name is <model>.<tier>.<random>."""
    tier = (worker or "").removeprefix(f"{queue.model}.").rpartition(".")[0]
    return tier or queue.tier


def _word(raw: bytes, max_chars: int = MAX_QUEUE_CHARS) -> str:
    return short(raw.decode(errors="replace"), max_chars)
