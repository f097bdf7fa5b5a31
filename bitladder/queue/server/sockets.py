"""redis-py's connections, changed in three ways.

All failures of a lost or demoted server are ConnectionError. With redis-py alone two are not: uvloop raises
RuntimeError on a write to a connection that the other end has reset, and a primary that has become a replica answers
READONLY for ever on connections that stay open.

A connection is established only when the protocol version at the server is one that this process understands.

The time limit is one for silence, as with redis-py's blocking connections, not for a whole answer or request: that
would limit their size.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.asyncio import connection as aio
from redis.asyncio import sentinel as aio_sentinel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from bitladder.queue.server import protocol
from bitladder.queue.server.certificates import refusal_hint
from bitladder.queue.server.outage import OUTAGE

log = structlog.get_logger()
_DEMOTED = "the primary has become a replica"
ASK = ("GET", protocol.KEY)


class DemotedError(RedisConnectionError):
    """The server is a replica now: it has not carried the command out, and will carry out none."""


def _announcement(stored: bytes | ResponseError | None) -> tuple[str, ...]:
    """Return the command that writes the protocol version; () where it is there, or may not be read.

    Raises:
        ProtocolMismatch: there is one that this process does not understand.
        ResponseError: the server does not serve, as in a cluster.

    """
    if isinstance(stored, NoPermissionError):  # an ACL from before there was such a key
        log.warning("this user of Redis may not read the protocol's version", key=protocol.KEY, error=str(stored))
        return ()
    if isinstance(stored, ResponseError):
        if "WRONGTYPE" not in str(stored):
            raise stored  # it says something about the server, not about the key
        stored = str(stored).encode()
    was_there = stored is not None
    if not protocol.is_outdated(stored):
        return ()
    return ("SET", protocol.KEY, protocol.own(), *(() if was_there else ("NX",)))


# A request may still be on its way when its answer is waited for: it has as much more time as its bytes take at this
# rate, and so has its answer. Smaller ones have no more.
_MIN_RATE, _MIN_COUNTED = 500_000, 64 * 1024


def extra_s(size: int) -> float:
    """Return how much time a request of so many bytes has beside the time limit; its answer has as much again."""
    return size / _MIN_RATE if size > _MIN_COUNTED else 0.0


@contextlib.contextmanager
def _noted() -> Iterator[None]:
    """Note that no connection could be made: by `connect`, or by a command on a connection that was lost before."""
    try:
        yield
    except (RedisError, OSError) as error:
        OUTAGE.failed(error)
        raise


class _ProgressParser(aio.DefaultParser):  # type: ignore[misc,valid-type]  # redis-py's choice, hiredis's
    def on_connect(self, connection: Any) -> None:  # noqa: ANN401  (redis-py's signature)
        super().on_connect(connection)
        self._connection = weakref.ref(connection)  # which holds the parser

    async def read_from_socket(self) -> bool:
        if connection := self._connection():
            connection.wait_on(is_underway=self._reader.has_data())
        return bool(await super().read_from_socket())


class _Aio(aio.AbstractConnection):
    sent_s = 0.0  # extra time of the last request, for its size

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  (redis-py's)
        super().__init__(**options, parser_class=_ProgressParser)

    def wait_on(self, *, is_underway: bool) -> None:
        """Restart the time limit of an answer that has begun to arrive, or whose request is large."""
        limit, silence_s = getattr(self, "_active_read_timeout", None), self.socket_timeout  # older ones have none
        if (is_underway or self.sent_s) and limit is not None and silence_s:
            limit.reschedule(asyncio.get_running_loop().time() + silence_s + self.sent_s)

    async def connect(self) -> None:
        with _noted():
            await super().connect()  # type: ignore[no-untyped-call]  # redis-py

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        with _noted() if retry_socket_connect else contextlib.nullcontext():  # `connect` would retry it
            await super().connect_check_health(check_health, retry_socket_connect)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        if command := _announcement(await self._asked(*ASK)):
            await self._asked(
                *command
            )  # without the right or the memory to write it, the connection works all the same
        OUTAGE.ended()

    async def _asked(self, *words: str) -> Any:  # noqa: ANN401  (whatever was asked)
        await self.send_command(*words, check_health=False)
        try:
            return await self.read_response()
        except ResponseError as error:
            return error

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401  (redis-py's signature)
        extra, usual_s = extra_s(sum(map(len, command)) if isinstance(command, list) else 0), self.socket_timeout
        try:
            if extra and usual_s:
                self.socket_timeout = usual_s + extra
            await super().send_packed_command(command, check_health)
            self.sent_s = extra
        except (RuntimeError, AttributeError) as error:  # AttributeError: it was closed while it waited to write
            raise RedisConnectionError(f"the connection is closed: {error}") from error
        finally:
            self.socket_timeout = usual_s

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  (redis-py's signature)
        try:
            # Not the method of the Sentinels' connections: it raises the same error for this and for a lost server.
            return await aio.AbstractConnection.read_response(self, *args, **options)
        except ReadOnlyError as error:
            await self.disconnect(nowait=True)
            raise DemotedError(_DEMOTED) from error

    def _error_message(self, exception: BaseException) -> str:
        return super()._error_message(exception) + refusal_hint(exception)


class _Sync(redis.connection.AbstractConnection):
    def connect(self) -> None:
        with _noted():
            super().connect()  # type: ignore[no-untyped-call]  # redis-py has no types here

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        with _noted() if retry_socket_connect else contextlib.nullcontext():
            super().connect_check_health(check_health, retry_socket_connect)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        if command := _announcement(self._asked(*ASK)):
            self._asked(*command)
        OUTAGE.ended()

    def _asked(self, *words: str) -> Any:  # noqa: ANN401  (whatever was asked)
        self.send_command(*words, check_health=False)  # type: ignore[no-untyped-call]  # redis-py has no types here
        try:
            return self.read_response()
        except ResponseError as error:
            return error

    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  (redis-py's signature)
        try:
            return redis.connection.AbstractConnection.read_response(self, *args, **options)
        except ReadOnlyError as error:
            self.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
            raise DemotedError(_DEMOTED) from error

    def _error_message(self, exception: BaseException) -> str:
        return str(super()._error_message(exception)) + refusal_hint(exception)  # type: ignore[no-untyped-call]  # redis-py


class AioTcp(_Aio, aio.Connection):
    """redis://."""


class AioTls(_Aio, aio.SSLConnection):
    """rediss://."""


class AioUnix(_Aio, aio.UnixDomainSocketConnection):
    """unix://."""


class AioSentinelTcp(_Aio, aio_sentinel.SentinelManagedConnection):
    """The primary that the Sentinels name, redis://."""


class AioSentinelTls(_Aio, aio_sentinel.SentinelManagedSSLConnection):
    """The primary that the Sentinels name, rediss://."""


class SyncTcp(_Sync, redis.connection.Connection):
    """redis://."""


class SyncTls(_Sync, redis.connection.SSLConnection):
    """rediss://."""


class SyncUnix(_Sync, redis.connection.UnixDomainSocketConnection):
    """unix://."""


class SyncSentinelTcp(_Sync, SentinelManagedConnection):
    """The primary that the Sentinels name, redis://."""


class SyncSentinelTls(_Sync, SentinelManagedSSLConnection):
    """The primary that the Sentinels name, rediss://."""


AIO = {"redis": AioTcp, "rediss": AioTls, "unix": AioUnix}
AIO_SENTINEL = {"redis": AioSentinelTcp, "rediss": AioSentinelTls}
SYNC = {"redis": SyncTcp, "rediss": SyncTls, "unix": SyncUnix}
SYNC_SENTINEL = {"redis": SyncSentinelTcp, "rediss": SyncSentinelTls}
