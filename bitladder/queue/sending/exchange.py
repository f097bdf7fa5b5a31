"""One bundle of commands over one connection, with an answer to each, even if the connection is lost in the middle.

This works on redis-py's connection instead of its client. The client has one error for a whole pipeline, and does not
distinguish a server that was never reached from one that may have carried the commands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from bitladder.queue.run_script import (
    Call,
    Command,
    LostError,
    NotSentError,
    Send,
    UnansweredError,
    attempts,
    drive,
    late,
    may_go_again,
)
from bitladder.queue.sending.server_time import EarliestServerTime
from bitladder.queue.server.sockets import DemotedError

# A connection may have been lost while it was idle: commands that may be sent twice go once more, on a fresh one.
TRIES = 2
# The server has not carried the command out, and the connection is given up.
TURNED_AWAY = (BusyLoadingError, DemotedError)


async def exchange(pool: redis.asyncio.ConnectionPool, commands: Sequence[Command]) -> list[Any]:
    """Send commands that may be sent twice; return for each its answer, or the exception that stands for it.

    Exceptions: ResponseError (Redis refused it), NotSentError, UnansweredError.
    """
    answers: list[Any] = []
    lost: LostError | None = None
    for _ in range(TRIES):
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # connected, or it raises
        except (RedisError, OSError) as error:
            lost = lost or NotSentError(error)
            break
        try:
            await connection.send_packed_command(connection.pack_commands(commands[len(answers) :]))
            while len(answers) < len(commands):
                answers.append(await _answer(connection, lost))
            break
        except TURNED_AWAY as error:
            lost = lost or NotSentError(error)
        except (RedisError, OSError) as error:
            lost = UnansweredError(error)
        finally:
            if len(answers) < len(commands):  # answers that still arrive on it belong to no caller
                await connection.disconnect(nowait=True)
            await pool.release(connection)
    return answers + [lost for _ in commands[len(answers) :]]


async def call_each(
    send: Send, calls: Sequence[Call], clock: EarliestServerTime | None = None, within_s: float = 0
) -> list[Any]:
    """Run scripts with `send`, as `exchange` does; `within_s`: how long `send` waits for a call that must be in time.

    Calls that came too late because the server's clock jumped go again, like those whose script it did not know.
    """

    async def heard(commands: Sequence[Command]) -> list[Any]:
        answers = await send(commands)
        for now_ms in filter(None, map(late, answers)):
            if clock:
                clock.heard(now_ms)
        return answers

    return await drive(attempts(calls, lambda: clock.after(within_s) if clock else 0), heard)


async def _answer(connection: redis.asyncio.connection.AbstractConnection, lost: LostError | None) -> Any:  # noqa: ANN401
    try:
        return await connection.read_response()
    except ResponseError as error:
        if isinstance(lost, UnansweredError) and not may_go_again(error):
            return lost  # this try was refused; an earlier one may have been carried out
        return error
