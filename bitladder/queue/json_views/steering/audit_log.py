"""The audit log: who ordered what, when, why, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from redis.exceptions import RedisError, ResponseError

from bitladder.errors import RequestError
from bitladder.queue.calls.steering import AUDIT, Note
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.kinds import Timestamp
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.untrusted import short
from bitladder.script_constants import MAX_AUDIT

# Of what an order was given on, and of its result, as JSON.
_MAX_CHARS = 2000
_MAX_RAW = 4 * _MAX_CHARS


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename={"operator": "by"}):
    """One order."""

    id: str
    at: Timestamp
    operator: Annotated[str, msgspec.Meta(description="The API key's name, or user@host of the command line.")]
    what: str
    on: Annotated[str, msgspec.Meta(description="A scope, the name of a worker, or a filter as JSON.")]
    reason: str
    result: Annotated[Any, msgspec.Meta(description="What came of it, or `begun`.")]


class AuditLog(msgspec.Struct, frozen=True, kw_only=True):
    """Orders, the latest first."""

    object: Literal["list"] = "list"
    data: list[AuditEntry]
    has_more: bool
    next_cursor: str | None


async def note(queue: JobQueue, order: Note, result: object) -> None:
    """Note an order that is carried out in more than one step: when it begins, and what came of it.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    words = order.words()
    fields: dict[Any, Any] = dict(zip(words[::2], words[1::2], strict=True))
    fields["result"] = msgspec.json.encode(result).decode()
    try:
        await queue.client.xadd(AUDIT, fields, maxlen=MAX_AUDIT, approximate=True)
    except (RedisError, OSError) as error:
        raise unreachable("cannot note the order", error) from error


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
    has_more = len(rows) > limit
    return AuditLog(data=entries, has_more=has_more, next_cursor=entries[-1].id if has_more else None)


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
    )
