"""The batches in Redis: create, read, list, cancel, and what a runner writes under its lease."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import uuid_utils
from redis.exceptions import RedisError

from bitladder.errors import ConflictError, NotFoundError, QuotaError
from bitladder.ids import read_id
from bitladder.queue.calls.batch_record import (
    BatchLimits,
    BatchState,
    LeasedBatch,
    NewRecord,
    batch_key,
    batches_key,
    cancel_batch_call,
    create_batch_call,
    lease_batches_call,
    read_leased,
    write_batch_call,
)
from bitladder.queue.calls.webhooks import Hook
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.protocol import unreachable
from bitladder.script_constants import BATCH_PREFIX
from dispatcher.batch.batch_state import BatchRecord, Progress, Spec, Status
from dispatcher.batch.batch_views import window_ms

_FIELDS = ("spec", "fingerprint", "status", "progress", "created", "expires", "cancelling", "done")
_OPEN_RETRY_S = 60.0
_encode = msgspec.json.Encoder().encode
_decode_spec = msgspec.json.Decoder(Spec).decode
_decode_progress = msgspec.json.Decoder(Progress).decode


class LeaseLostError(Exception):
    """Another runner has the batch by now, or it is over."""


class Batches:
    """Typed access to the batches of all tenants."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def create(self, spec: Spec, idempotency_key: str, body: bytes, hook: str = "") -> BatchRecord:
        """Store a new batch, or return the one that the same key and body have created before.

        `hook`: who is told of its end beside the tenant's endpoints.

        Raises:
            QuotaError: the tenant has as many open batches as it may.
            ConflictError: the idempotency key was used with another body.

        """
        settings, tenant = self._queue.settings.batch, spec.owner.tenant
        length_ms = window_ms(spec.completion_window, settings.max_window_s)
        limits = BatchLimits(settings.max_open, settings.max_kept, settings.keep_s * 1000)
        batch_id = _id_of(tenant, idempotency_key)
        hook = hook or Hook(tenant=tenant).text()
        new = NewRecord(_encode(spec), _fingerprint(body), hook, length_ms)
        call = create_batch_call(batch_id, tenant, new, limits)
        result, number = await self._queue.run(call)
        if result == b"mismatch":
            raise _key_reused()
        if result == b"full":
            raise QuotaError(
                f"tenant {tenant} has {int(number)} batches that have not ended, its most ([batch].max_open)",
                retry_after_s=_OPEN_RETRY_S,
            )
        return await self.read(batch_id)

    async def repeat_of(self, tenant: str, idempotency_key: str, body: bytes) -> BatchRecord | None:
        """Return the batch that the same key and body have created before.

        Raises:
            ConflictError: the idempotency key was used with another body.

        """
        batch_id = _id_of(tenant, idempotency_key)
        (record,) = await self._read_many([batch_id]) if idempotency_key else (None,)
        if record and record.fingerprint != _fingerprint(body):
            raise _key_reused()
        return record

    async def read(self, batch_id: str) -> BatchRecord:
        """Read a batch.

        Raises:
            NotFoundError: there is none.

        """
        (record,) = await self._read_many([batch_id])
        if record is None:
            raise no_batch(batch_id)
        return record

    async def page(self, tenant: str, after: str | None, limit: int) -> tuple[list[BatchRecord], bool]:
        """Return a tenant's batches behind this one, the latest first, and whether there are more."""
        key, client = batches_key(tenant), self._queue.client
        try:
            start = 0
            if after is not None:
                rank: Any = await client.zrevrank(key, after)
                if rank is None:
                    raise no_batch(after)
                start = int(rank) + 1
            raw_ids: Any = await client.zrevrange(key, start, start + limit)
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        ids = [read_id(batch_id) for batch_id in raw_ids]
        records = await self._read_many(ids[:limit])
        return [record for record in records if record], len(ids) > limit

    async def cancel(self, batch_id: str) -> Status:
        """Ask for the end of a batch; return the status that it had before."""
        return Status((await self._queue.run(cancel_batch_call(batch_id))).decode())

    async def lease(self, lease_ms: int, max_taken: int, held: Mapping[str, int]) -> tuple[int, list[LeasedBatch]]:
        """Renew leases, and take up to so many batches that nobody holds; return the server's time, and them all."""
        return read_leased(await self._queue.run(lease_batches_call(lease_ms, max_taken, held)))

    async def write(
        self, record: BatchRecord, fence: int, status: Status, progress: Progress, done: bytes = b""
    ) -> Status:
        """Write how far a batch is; return its status, which is `cancelling` where it was cancelled meanwhile.

        Raises:
            LeaseLostError: another runner has it by now.

        """
        kept_ms = self._queue.settings.batch.keep_s * 1000 if status.is_end else None
        written = BatchState(status, _encode(progress), done, kept_ms)
        call = write_batch_call(record.id, record.tenant, fence, written)
        answer = (await self._queue.run(call)).decode()
        if answer == "lost":
            raise LeaseLostError(record.id)
        return Status(answer)

    async def _read_many(self, batch_ids: Sequence[str]) -> list[BatchRecord | None]:
        try:
            async with self._queue.client.pipeline(transaction=False) as pipe:
                for batch_id in batch_ids:
                    pipe.hmget(batch_key(batch_id), _FIELDS)
                rows = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        return [_record(batch_id, row) for batch_id, row in zip(batch_ids, rows, strict=True)]


def no_batch(batch_id: str) -> NotFoundError:
    """Return the error for an id that is unknown, or another tenant's."""
    return NotFoundError(f"there is no batch {batch_id[:80]!r}", param="batch_id")


def _key_reused() -> ConflictError:
    return ConflictError("the Idempotency-Key was used with another request body", param="Idempotency-Key")


def _fingerprint(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _id_of(tenant: str, idempotency_key: str) -> str:
    """Return an id for a new batch: with an idempotency key, the same for the same key of a tenant."""
    if not idempotency_key:
        return f"{BATCH_PREFIX}{uuid_utils.uuid7().hex}"
    return f"{BATCH_PREFIX}{hashlib.sha256(f'{tenant}:{idempotency_key}'.encode()).hexdigest()[:32]}"


def _record(batch_id: str, row: Sequence[bytes | None]) -> BatchRecord | None:
    """Read a record; None: there is none, or another program wrote it."""
    try:
        return _read_row(batch_id, row)
    except ValueError:  # msgspec's errors are some, too
        return None


def _read_row(batch_id: str, row: Sequence[bytes | None]) -> BatchRecord | None:
    spec, fingerprint, status, progress, created, expires, cancelling, done = row
    if not (spec and status and progress and created and expires):
        return None
    return BatchRecord(
        id=batch_id,
        spec=_decode_spec(spec),
        fingerprint=(fingerprint or b"").decode(),
        status=Status(status.decode()),
        progress=_decode_progress(progress),
        created_ms=int(created),
        expires_ms=int(expires),
        cancelling_ms=int(cancelling) if cancelling else None,
        done=done or b"",
    )
