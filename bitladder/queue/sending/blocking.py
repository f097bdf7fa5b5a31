"""Script calls over one blocking connection, for batch producers."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls.submit import unsafe
from bitladder.queue.run_script import (
    Argument,
    Call,
    Command,
    LostError,
    NotSentError,
    UnansweredError,
    late,
    loads,
    may_go_again,
)
from bitladder.queue.sending.exchange import TURNED_AWAY
from bitladder.queue.sending.server_time import ASK, EarliestServerTime
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.durability import barrier, check_passed
from bitladder.settings.sections import Settings

# The connection may be lost, and the server may have lost the script as well.
TRIES = 3


class _Pending:
    """A call without an answer yet. `lost`: why the last try had none."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.lost: LostError | None = None

    def was_sent(self, reason: Exception) -> None:
        self.lost = UnansweredError(reason)

    def was_not_sent(self, reason: Exception) -> None:
        self.lost = self.lost or NotSentError(reason)  # an earlier try may have been sent


class BlockingScripts:
    """Calls scripts and reads their answers; of many calls, one is sent ahead. For one thread.

    This works on redis-py's connection instead of its client, which costs as much per command as all else that a
    producer does for a job. Only for scripts that may be called again when it is not known whether they ran.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._barrier = settings, barrier(settings)
        self._pool = connect_sync(settings.redis).connection_pool
        self._connection: redis.Connection | None = None
        self._sent: deque[_Pending] = deque()  # calls whose answers are on their way
        # A call that was given up must not be carried out later: its caller was told that it was not.
        self._clock, self._within_s = EarliestServerTime(), self._pool.connection_kwargs["socket_timeout"]

    def call(self, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        """Call one script and return its answer, or the exception that stands for it: ResponseError, LostError."""
        return self._answer(_Pending(call))

    def call_each(self, calls: Iterable[Call | None]) -> Generator[Any]:
        """Yield the answers in order, as `call` returns them; while Redis works on one, the next call is sent.

        None in the place of a call is yielded as it is, once all before it are answered. After a LostError nothing more
        is sent or taken from `calls`; those that were taken are answered.
        """
        waiting: deque[_Pending] = deque()
        try:
            for call in calls:
                if call is not None:
                    waiting.append(_Pending(call))
                    self._send_ahead(waiting[-1])
                while len(waiting) > (call is not None):
                    yield (answer := self._answer_oldest(waiting))
                    if isinstance(answer, LostError):
                        yield from (pending.lost or NotSentError(answer.reason) for pending in waiting)
                        return
                if call is None:
                    yield None
            while waiting:
                yield self._answer_oldest(waiting)
        finally:
            if self._sent:  # `calls` raised, or the caller reads no further: the answers on their way belong to no call
                self._drop()

    def close(self) -> None:
        self._drop()

    def _answer_oldest(self, waiting: deque[_Pending]) -> Any:  # noqa: ANN401
        answer = self._answer(waiting.popleft())
        if not isinstance(answer, LostError):
            for later in waiting:
                if later not in self._sent:  # it was lost with the connection
                    self._send_ahead(later)
        return answer

    def _answer(self, pending: _Pending) -> Any:  # noqa: ANN401
        before: list[Command] = []
        for _ in range(TRIES):
            if error := self._open():
                pending.was_not_sent(error)
                continue
            try:
                return self._asked(pending, before)
            except ResponseError as error:
                if not self._may_go_again(error):
                    return pending.lost if isinstance(pending.lost, UnansweredError) else error
                before = loads([pending.call], [error])
            except TURNED_AWAY as error:
                self._drop()
                pending.was_not_sent(error)
            except (RedisError, OSError) as error:
                self._drop()
                pending.was_sent(error)
        return pending.lost or NotSentError(RedisError("Redis loses its scripts as fast as they are loaded"))

    def _may_go_again(self, error: ResponseError) -> bool:
        """Return whether a call has not run and another try may succeed."""
        if not may_go_again(error):
            return False
        if now_ms := late(error):
            self._clock.heard(now_ms)
        if self._sent:  # the answers of calls behind it would come before that of another try
            self._drop()
        return True

    def _asked(self, pending: _Pending, before: Iterable[Command]) -> Any:  # noqa: ANN401
        for command in before:
            self._command(*command)
            self._wire.read_response()
        if pending not in self._sent:
            self._send(pending)
        self._sent.popleft()
        answer, *behind = [self._read() for _ in range(1 + len(self._barrier))]
        if isinstance(answer, Exception):
            raise answer
        try:
            if behind:
                check_passed(self._settings, behind)
        except QueueUnreachableError as error:
            return unsafe(answer, error)
        return answer

    def _send_ahead(self, pending: _Pending) -> None:
        """Send a call whose answer is read later. If that fails it is sent again when its answer is asked for."""
        if self._open():
            return
        try:
            self._send(pending)
        except (RedisError, OSError):
            self._drop()

    def _send(self, pending: _Pending) -> None:
        self._sent.append(pending)
        self._command(*pending.call.words(self._clock.after(self._within_s)))
        for command in self._barrier:
            self._command(*command)

    def _read(self) -> Any:  # noqa: ANN401
        try:
            return self._wire.read_response()
        except ResponseError as error:  # the answers behind it are still to be read
            return error

    def _command(self, *words: Argument) -> None:
        self._wire.send_command(*words)  # type: ignore[no-untyped-call]  # redis-py has no types here

    def _open(self) -> Exception | None:
        """Connect and read the server's clock if need be; return why that failed."""
        try:
            if self._connection is not None and not self._sent and self._is_stale():
                self._drop()
            if self._connection is None:
                self._connection = self._pool.get_connection()
            if self._clock.is_stale and not self._sent:
                self._command(*ASK)
                self._clock.read(self._wire.read_response())
        except (RedisError, OSError) as error:
            self._drop()
            return error
        return None

    def _is_stale(self) -> bool:
        """Return whether the server has closed the connection: what is sent on it then would be lost."""
        try:
            return bool(self._wire.can_read())  # no answer is due, so only the end of the connection can be there
        except (RedisError, OSError):
            return True

    @property
    def _wire(self) -> redis.Connection:
        assert self._connection  # noqa: S101  (_open comes before every read and write)
        return self._connection

    def _drop(self) -> None:
        for pending in self._sent:
            pending.was_sent(RedisError("the connection was lost"))
        self._sent.clear()
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
            self._pool.release(self._connection)
            self._connection = None
