"""The audit log: who ordered what, when, why, and what came of it."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

import msgspec
from redis.exceptions import RedisError, ResponseError

from bitladder.errors import QueueUnreachableError, RequestError
from bitladder.queue.calls.steering import AUDIT, MAX_ON_CHARS, Note
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.kinds import Timestamp
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.untrusted import short
from bitladder.script_constants import MAX_AUDIT

# Of a field.
_MAX_CHARS = MAX_ON_CHARS
_MAX_RAW = 4 * _MAX_CHARS
_BEGUN, _OPEN = "begun", "not ended"
_LATER = 1000


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename={"operator": "by"}):
    """One order."""

    id: str
    at: Timestamp
    operator: Annotated[str, msgspec.Meta(description="The API key's name, or user@host of the command line.")]
    what: str
    on: Annotated[str, msgspec.Meta(description="A scope, the name of a worker, or a filter as JSON.")]
    reason: str
    result: Annotated[
        Any,
        msgspec.Meta(
            description="What came of it; or `begun`, and `not ended` while no later entry says how it ended."
        ),
    ]
    began: Annotated[
        str | None, msgspec.Meta(description="Of an order in several steps: the entry with which it began.")
    ]


class AuditLog(msgspec.Struct, frozen=True, kw_only=True):
    """Orders, the latest first."""

    object: Literal["list"] = "list"
    data: list[AuditEntry]
    has_more: bool
    next_cursor: str | None


@asynccontextmanager
async def noted(queue: JobQueue, order: Note, results: Mapping[str, object]) -> AsyncIterator[None]:
    """Note an order of several steps when it begins, and with its results when it ends or stops.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    began = await _note(queue, order, _BEGUN)
    try:
        yield
    except BaseException as error:  # a signal, too
        with suppress(QueueUnreachableError):
            why = "interrupted" if isinstance(error, CancelledError) else short(str(error) or type(error).__name__)
            await _note(queue, order, {**results, "stopped": why}, began)
        raise
    await _note(queue, order, results, began)


async def _note(queue: JobQueue, order: Note, result: object, began: str = "") -> str:
    words = order.words()
    fields: dict[Any, Any] = dict(zip(words[::2], words[1::2], strict=True))
    fields["result"] = msgspec.json.encode(result).decode()
    if began:
        fields["began"] = began
    try:
        entry_id: Any = await queue.client.xadd(AUDIT, fields, maxlen=MAX_AUDIT, approximate=True)
    except (RedisError, OSError) as error:
        raise unreachable("cannot note the order", error) from error
    return str(entry_id.decode())


async def read_audit(queue: JobQueue, limit: int, after: str | None = None) -> AuditLog:
    """List orders, the latest first, behind the entry `after`.

    Raises:
        RequestError: `after` is no id of an entry.
        QueueUnreachableError: Redis is unreachable.

    """
    end = f"({after}" if after else "+"
    try:
        rows: Any = await queue.client.xrevrange(AUDIT, end, "-", count=limit + 1)
    except ResponseError as error:
        if "WRONGTYPE" in str(error):  # another program's key: the next order replaces it
            rows = []
        elif "Invalid stream ID" in str(error):
            raise RequestError(f"after must be the id of an entry, got {short(after or '')!r}", param="after") from None
        else:
            raise unreachable("Redis refused", error) from error
    except (RedisError, OSError) as error:
        raise unreachable("cannot read from Redis", error) from error
    entries = [_entry(entry_id.decode(), fields) for entry_id, fields in rows[:limit]]
    entries = await _with_ends(queue, entries)
    has_more = len(rows) > limit
    return AuditLog(data=entries, has_more=has_more, next_cursor=entries[-1].id if has_more else None)


async def _with_ends(queue: JobQueue, entries: list[AuditEntry]) -> list[AuditEntry]:
    """Say of orders that no later entry ends that they have not ended: they are under way, or were killed."""
    ended = {entry.began for entry in entries}
    if not (open_ones := [entry.id for entry in entries if entry.result == _BEGUN and entry.id not in ended]):
        return entries
    try:  # one that ended has its end a few entries later, which may be on the page before
        later: Any = await queue.client.xrange(AUDIT, f"({open_ones[-1]}", "+", count=_LATER)
    except (RedisError, OSError) as error:
        raise unreachable("cannot read from Redis", error) from error
    not_ended = set(open_ones) - {fields.get(b"began", b"").decode(errors="replace") for _, fields in later}
    return [msgspec.structs.replace(entry, result=_OPEN) if entry.id in not_ended else entry for entry in entries]


def _entry(entry_id: str, fields: dict[bytes, bytes]) -> AuditEntry:
    def text(name: bytes) -> str:
        return short(fields.get(name, b"")[:_MAX_RAW].decode(errors="replace"), _MAX_CHARS)

    try:
        result = msgspec.json.decode(text(b"result"))
    except msgspec.DecodeError:
        result = text(b"result")
    return AuditEntry(
        id=entry_id,
        at=int(entry_id.partition("-")[0]) / 1000,
        operator=text(b"by"),
        what=text(b"what"),
        on=text(b"on"),
        reason=text(b"reason"),
        result=result,
        began=text(b"began") or None,
    )
