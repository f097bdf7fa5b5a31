"""One bundle of commands over one connection, an answer to each: what a lost connection makes unknown is said so.

Works on redis-py's connection instead of its client, which has one error for a whole pipeline and does not tell a
server that was never reached from one that may have carried the commands out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError, ResponseError

from bitladder.queue.calls import Call, LostError, NotSentError, UnansweredError, late
from bitladder.queue.clock import ServerClock
from bitladder.queue.run_script import Argument, source
from bitladder.queue.server.sockets import DemotedError

# A connection may have died while it was idle; commands that may be sent again go once more, on a fresh one.
TRIES = 2
# What a server answers instead of carrying a command out, and gives the connection up for.
TURNED_AWAY = (BusyLoadingError, DemotedError)

Send = Callable[[Sequence[Sequence[Argument]]], Awaitable[list[Any]]]


async def exchange(pool: redis.asyncio.ConnectionPool, commands: Sequence[Sequence[Argument]]) -> list[Any]:
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
            if len(answers) < len(commands):  # the rest of its answers belong to nobody
                await connection.disconnect(nowait=True)
            await pool.release(connection)
    return answers + [lost for _ in commands[len(answers) :]]


async def call_each(
    send: Send, calls: Sequence[Call], clock: ServerClock | None = None, within_s: float = 0
) -> list[Any]:
    """Call scripts with `send`, as `exchange` does; `within_s`: how long `send` waits for a call that must be in time.

    Those that the server does not know are loaded, and those that came too late because its clock jumped go again.
    """
    answers = await send([_words(call, clock, within_s) for call in calls])
    # Only those that did not run: the others have done their work.
    missing = [index for index, answer in enumerate(answers) if may_go_again(answer)]
    if not missing:
        return answers
    for now_ms in filter(None, (late(answers[index]) for index in missing)):
        if clock:
            clock.saw(now_ms)
    names = sorted({calls[index].script for index in missing if isinstance(answers[index], NoScriptError)})
    loads = [("SCRIPT", "LOAD", source(name)) for name in names]
    again = await send([*loads, *(_words(calls[index], clock, within_s) for index in missing)])
    refusal = next((answer for answer in again[: len(loads)] if isinstance(answer, ResponseError)), None)
    for index, answer in zip(missing, again[len(loads) :], strict=True):
        answers[index] = refusal if refusal and isinstance(answer, NoScriptError) else answer
        if late(answer) or isinstance(answer, NotSentError):  # an earlier try may have been heard, and not answered
            answers[index] = UnansweredError(answer)
    return answers


def may_go_again(answer: Any) -> bool:  # noqa: ANN401
    """Return whether a call was refused for what another try does not meet."""
    return isinstance(answer, NoScriptError) or late(answer) is not None


def _words(call: Call, clock: ServerClock | None, within_s: float) -> Sequence[Argument]:
    return call.words(clock.after(within_s) if clock else 0)


async def _answer(connection: redis.asyncio.connection.AbstractConnection, lost: LostError | None) -> Any:  # noqa: ANN401
    try:
        return await connection.read_response()
    except ResponseError as error:
        if isinstance(lost, UnansweredError) and not may_go_again(error):
            return lost  # this try was refused; the one before it may not have been
        return error
