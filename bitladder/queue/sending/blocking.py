"""The scripts over one blocking connection, for batch producers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from bitladder.errors import QueueUnreachableError
from bitladder.queue.calls import unsafe
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

# A lost connection and a server that has forgotten the script may come together.
TRIES = 3


class _Pending:
    """A call without an answer yet, and why it has none."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.lost: LostError | None = None

    def was_sent(self, reason: Exception) -> None:
        self.lost = UnansweredError(reason)

    def was_not_sent(self, reason: Exception) -> None:
        self.lost = self.lost or NotSentError(reason)  # it may have been before


class BlockingScripts:
    """Calls scripts and reads their answers, one call ahead where there are many. Not for several threads.

    Works on redis-py's connection instead of its client: the client costs as much per command as all else that a
    producer does for a job. Only for scripts that may be called again when it is not known whether they ran.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._barrier = settings, barrier(settings)
        self._pool = connect_sync(settings.redis).connection_pool
        self._connection: redis.Connection | None = None
        self._sent: deque[_Pending] = deque()  # calls whose answers are on their way
        # What has not been carried out when a try is given up must not be later: its caller was told so.
        self._clock, self._within_s = EarliestServerTime(), self._pool.connection_kwargs["socket_timeout"]

    def call(self, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        """Call one script and return its answer, or the exception that stands for it: ResponseError, LostError."""
        return self._answer(_Pending(call))

    def call_each(self, calls: Iterable[Call]) -> Iterator[Any]:
        """Yield the answers in order, as `call` returns them; while Redis works on one, the next call is sent.

        After a LostError nothing more is sent or taken from `calls`; those that were taken are answered.
        """
        waiting: deque[_Pending] = deque()
        try:
            for call in calls:
                waiting.append(_Pending(call))
                self._send_ahead(waiting[-1])
                if len(waiting) > 1:
                    yield (answer := self._answer_oldest(waiting))
                    if isinstance(answer, LostError):
                        yield from (one.lost or NotSentError(answer.reason) for one in waiting)
                        return
            while waiting:
                yield self._answer_oldest(waiting)
        finally:
            if self._sent:  # `calls` failed, or nobody reads on: the answers on their way belong to nobody
                self._drop()

    def close(self) -> None:
        self._drop()

    def _answer_oldest(self, waiting: deque[_Pending]) -> Any:  # noqa: ANN401
        answer = self._answer(waiting.popleft())
        if not isinstance(answer, LostError):
            for later in waiting:
                if later not in self._sent:  # it went with a lost connection
                    self._send_ahead(later)
        return answer

    def _answer(self, one: _Pending) -> Any:  # noqa: ANN401
        before: list[Command] = []
        for _ in range(TRIES):
            if error := self._open():
                one.was_not_sent(error)
                continue
            try:
                return self._asked(one, before)
            except ResponseError as error:
                if not self._may_go_again(error):
                    return one.lost if isinstance(one.lost, UnansweredError) else error
                before = loads([one.call], [error])
            except TURNED_AWAY as error:
                self._drop()
                one.was_not_sent(error)
            except (RedisError, OSError) as error:
                self._drop()
                one.was_sent(error)
        return one.lost or NotSentError(RedisError("Redis forgets its scripts as fast as they are loaded"))

    def _may_go_again(self, error: ResponseError) -> bool:
        """Return whether a call has not run, for a reason that another try does not meet."""
        if not may_go_again(error):
            return False
        if now_ms := late(error):
            self._clock.heard(now_ms)
        if self._sent:  # the answers of those behind it stand before that of another try
            self._drop()
        return True

    def _asked(self, one: _Pending, before: Iterable[Command]) -> Any:  # noqa: ANN401
        for command in before:
            self._command(*command)
            self._wire.read_response()
        if one not in self._sent:
            self._send(one)
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

    def _send_ahead(self, one: _Pending) -> None:
        """Send what is answered later; whoever asks for the answer sends it again where that failed."""
        if self._open():
            return
        try:
            self._send(one)
        except (RedisError, OSError):
            self._drop()

    def _send(self, one: _Pending) -> None:
        self._sent.append(one)
        self._command(*one.call.words(self._clock.after(self._within_s)))
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
        """Be connected, and know the server's clock; return why not."""
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
            return bool(self._wire.can_read())  # nothing is asked, so nothing but the end can be there
        except (RedisError, OSError):
            return True

    @property
    def _wire(self) -> redis.Connection:
        assert self._connection  # noqa: S101  (whoever reads or writes has opened it)
        return self._connection

    def _drop(self) -> None:
        for one in self._sent:
            one.was_sent(RedisError("the connection was lost"))
        self._sent.clear()
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
            self._pool.release(self._connection)
            self._connection = None
