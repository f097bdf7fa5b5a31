"""Where the live settings are: one document in Redis, signed where jobs are, and the last changes of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from redis.exceptions import RedisError, ResponseError

from bitladder.errors import ConfigError, RequestError
from bitladder.queue.calls.upkeep import write_settings_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.protocol import unreachable
from bitladder.settings.live_values import NO_LIVE, LiveDocument, Timestamp, not_ended

_KEY, _HISTORY = "bl:settings", "bl:settings:history"
MAX_BYTES = 65_536
MAX_CHANGES = 500
_WRONG = "the live settings in Redis (bl:settings) are refused: {}; `bitladder settings unset --all` takes them back"


class RevisionError(RequestError):
    """Somebody else has changed the live settings since the client read them."""

    status = 409
    code = "revision_conflict"


class SettingChange(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a change."""

    key: str
    old: Any  # what was in force
    new: Any
    unset: bool = False  # `new` is what the other sources say


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the live settings."""

    revision: int
    at: Timestamp
    author: str = msgspec.field(name="by")
    reason: str
    until: Timestamp | None = None  # of the new values
    changes: list[SettingChange]


class LiveStore:
    """The live settings at one Redis."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._raw, self._document = b"", NO_LIVE  # as they were read last

    async def aclose(self) -> None:
        await self._queue.aclose()

    async def read(self) -> LiveDocument:
        """Return the document, without what has ended.

        Raises:
            ConfigError: what is there is none, or not of one of us.
            QueueUnreachableError: Redis is.

        """
        raw = await self.read_raw()
        if raw != self._raw:
            self._document, self._raw = self.decoded(raw), raw
        return not_ended(self._document, time.time())

    async def read_raw(self) -> bytes:
        """Return the document's first bytes as they are stored, one more at most than it may have; b'': there is none.

        Raises:
            ConfigError: the key is no string.
            QueueUnreachableError: Redis is.

        """
        try:
            raw: Any = await self._queue.client.getrange(_KEY, 0, MAX_BYTES)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise ConfigError(_WRONG.format("the key is no string")) from None
            raise unreachable("Redis refused", error) from error
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        return bytes(raw)

    def decoded(self, raw: bytes) -> LiveDocument:
        """Read a document as it is stored.

        Raises:
            ConfigError: it is none, or not of one of us.

        """
        if not raw:
            return NO_LIVE
        if len(raw) > MAX_BYTES:
            raise ConfigError(_WRONG.format(f"they have more than {MAX_BYTES} bytes"))
        content = self._queue.signer.decode_document(raw)
        if content is None:
            raise ConfigError(_WRONG.format("they are not signed with one of queue.secrets"))
        try:
            return msgspec.json.decode(content, type=LiveDocument)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(_WRONG.format(f"they cannot be read ({error})")) from None

    async def write(self, before: bytes, document: LiveDocument, entry: HistoryEntry) -> bool:
        """Store the next document, and wait until it is safe; False where it is another already than before.

        Raises:
            ConfigError: it is too large.
            QueueUnreachableError: Redis is; it may be stored.

        """
        content = self._queue.signer.encode_document(msgspec.json.encode(document))
        if len(content) > MAX_BYTES:
            raise ConfigError(f"the live settings may have {MAX_BYTES} bytes in all, got {len(content)}")
        call = write_settings_call(
            (_KEY, _HISTORY), (before, content), MAX_BYTES, msgspec.json.encode(entry), MAX_CHANGES
        )
        if not await self._queue.run(call):
            return False
        await self._queue.make_safe()
        return True

    async def history(self, limit: int) -> list[HistoryEntry]:
        """Return the last changes, the latest first; what is none of ours is left out.

        Raises:
            QueueUnreachableError: Redis is.

        """
        try:
            stored: list[Any] = await self._queue.client.lrange(_HISTORY, 0, MAX_CHANGES - 1)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                return []
            raise unreachable("Redis refused", error) from error
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        entries = []
        for raw in stored:
            try:
                entries.append(msgspec.json.decode(raw, type=HistoryEntry))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        return entries[:limit]
