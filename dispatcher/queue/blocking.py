"""The scripts over one blocking connection, for batch producers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from dispatcher.errors import QueueUnreachableError
from dispatcher.queue.commands import Argument, Call
from dispatcher.queue.connection import connect_sync
from dispatcher.queue.durability import barrier, check_passed
from dispatcher.queue.scripts import digest, source
from dispatcher.sections import Settings

# A lost connection and a server that has forgotten the script may come together.
TRIES = 3


class BlockingScripts:
    """Calls scripts and reads their answers, one call ahead where there are many. Not for several threads.

    Works on redis-py's connection instead of its client: the client costs as much per command as all else that a
    producer does for a job. Only for scripts that may be called again when it is not known whether they ran.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._barrier = settings, barrier(settings)
        self._pool = connect_sync(settings.redis).connection_pool
        self._connection: redis.Connection | None = None
        self._sent: deque[Call] = deque()  # calls whose answers are on their way

    def call(self, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        """Call one script and return its answer.

        Raises:
            QueueUnreachableError: Redis is away or refuses, or does not say in time that what it wrote is safe.

        """
        is_forgotten = False
        for left in reversed(range(TRIES)):
            try:
                if is_forgotten:
                    self._load(call.script)
                self._send(call)
                return self._receive()
            except NoScriptError:
                is_forgotten = True
            except (RedisError, OSError) as error:
                self._drop()
                if not left:
                    raise QueueUnreachableError(f"Redis does not answer, or refuses: {error}") from error
        raise QueueUnreachableError("Redis forgets its scripts as fast as they are loaded")

    def call_each(self, calls: Iterable[Call]) -> Iterator[Any]:
        """Yield the answers in order; while Redis works on one call, the next is taken from `calls` and sent."""
        waiting: deque[Call] = deque()
        try:
            for call in calls:
                waiting.append(call)
                self._send_ahead(call)
                if len(waiting) > 1:
                    yield self._answer_oldest(waiting)
            while waiting:
                yield self._answer_oldest(waiting)
        finally:
            if self._sent:  # `calls` failed, or nobody reads on: the answers on their way belong to nobody
                self._drop()

    def close(self) -> None:
        self._drop()

    def _send_ahead(self, call: Call) -> None:
        try:
            self._send(call)
        except (RedisError, OSError):
            self._drop()  # whoever asks for its answer sends it again

    def _answer_oldest(self, waiting: deque[Call]) -> Any:  # noqa: ANN401
        call = waiting.popleft()
        if self._sent and self._sent[0] is call:
            try:
                return self._receive()
            except (RedisError, OSError):
                pass  # it, and what was sent behind it, goes again
        self._drop()
        answer = self.call(call)
        for later in waiting:
            self._send_ahead(later)
        return answer

    def _send(self, call: Call) -> None:
        self._command("EVALSHA", digest(call.script), len(call.keys), *call.keys, *call.args)
        for command in self._barrier:
            self._command(*command)
        self._sent.append(call)

    def _receive(self) -> Any:  # noqa: ANN401
        self._sent.popleft()
        if not self._barrier:
            return self._open().read_response()
        answer, *behind = [self._read() for _ in range(1 + len(self._barrier))]
        if isinstance(answer, Exception):
            raise answer
        check_passed(self._settings, behind)
        return answer

    def _read(self) -> Any:  # noqa: ANN401
        try:
            return self._open().read_response()
        except ResponseError as error:  # the answers behind it are still to be read
            return error

    def _command(self, *words: Argument) -> None:
        self._open().send_command(*words)  # type: ignore[no-untyped-call]  # redis-py has no types here

    def _load(self, script: str) -> None:
        self._command("SCRIPT", "LOAD", source(script))
        self._open().read_response()

    def _open(self) -> redis.Connection:
        if self._connection is None:
            self._connection = self._pool.get_connection()
        return self._connection

    def _drop(self) -> None:
        self._sent.clear()
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
            self._pool.release(self._connection)
            self._connection = None
