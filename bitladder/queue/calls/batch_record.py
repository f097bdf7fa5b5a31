"""Batches: create_batch.lua, lease_batches.lua, write_batch.lua, cancel_batch.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bitladder.ids import read_id
from bitladder.queue.run_script import Argument, Call

_LEASES = "bl:batch_leases"


class LeasedBatch(NamedTuple):
    """A batch that a process holds, or has lost: then its fence is 0."""

    id: str
    fence: int
    status: str


class BatchState(NamedTuple):
    """How far a batch is, as its runner writes it."""

    status: str
    progress: bytes
    done: bytes  # b'': as it was
    kept_ms: int | None  # how long it is kept, where it is over; None: it is not


class BatchLimits(NamedTuple):
    """How many batches a tenant may have, and for how long an ended one is kept."""

    max_open: int
    max_kept: int
    kept_ms: int


class NewRecord(NamedTuple):
    """What a batch is created with."""

    spec: bytes
    fingerprint: str  # of the request
    hook: str  # who is told of its end (calls/webhooks.py)
    window_ms: int


def batch_key(batch_id: str) -> str:
    """Return the key of a batch's record."""
    return f"bl:batch:{batch_id}"


def batches_key(tenant: str) -> str:
    """Return the key of a tenant's batches, by when they were created."""
    return f"bl:batches:{tenant}"


def create_batch_call(batch_id: str, tenant: str, new: NewRecord, limits: BatchLimits) -> Call:
    """Build the call of create_batch.lua. It answers with a result, and when the batch was created."""
    keys = [batch_key(batch_id), batches_key(tenant), f"bl:open_batches:{tenant}", _LEASES]
    args: list[Argument] = [batch_id, new.spec, new.fingerprint, new.window_ms]
    return Call("create_batch", keys, [*args, limits.kept_ms, limits.max_open, limits.max_kept, new.hook])


def lease_batches_call(lease_ms: int, max_taken: int, held: Mapping[str, int]) -> Call:
    """Build the call of lease_batches.lua."""
    pairs: list[Argument] = [word for pair in held.items() for word in pair]
    return Call("lease_batches", [_LEASES], [lease_ms, max_taken, *pairs])


def read_leased(answer: Sequence[Any]) -> tuple[int, list[LeasedBatch]]:
    """Read the answer of lease_batches.lua: the server's time in ms, and the batches."""
    now_ms, *rows = answer
    return int(now_ms), [
        LeasedBatch(read_id(name), int(fence), status.decode(errors="replace")) for name, fence, status in rows
    ]


def write_batch_call(batch_id: str, tenant: str, fence: int, written: BatchState) -> Call:
    """Build the call of write_batch.lua. It answers with the status, or `lost`."""
    keys = [batch_key(batch_id), _LEASES, f"bl:open_batches:{tenant}"]
    kept = "" if written.kept_ms is None else written.kept_ms
    return Call("write_batch", keys, [batch_id, fence, written.status, written.progress, written.done, kept])


def cancel_batch_call(batch_id: str) -> Call:
    """Build the call of cancel_batch.lua. It answers with the status before."""
    return Call("cancel_batch", [batch_key(batch_id)], [])
