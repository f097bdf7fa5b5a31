"""Read a stored token stream from any place in it, and on as it grows: for clients that lost their connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from dispatcher.contract import Outcome, Piece
from dispatcher.errors import QueueUnreachableError
from dispatcher.queue.job_queue import JobQueue
from dispatcher.queue.outcomes import Item, StreamRestartedError
from dispatcher.queue.records import read_piece

# How long one read waits for another piece before it looks whether the job is over.
LOOK_EVERY_MS = 250
# Pieces per read.
MOST_PIECES = 500


async def replay(
    client: redis.asyncio.Redis, queue: JobQueue, job_id: str, after: tuple[int, int], timeout_s: float
) -> AsyncIterator[Item]:
    """Yield the pieces behind that one, execution and number, and then the outcome; (0, 0) means from the start.

    Raises:
        StreamRestartedError: a later execution began the answer anew.
        TimeoutError: there was no outcome in time.
        QueueUnreachableError: Redis is away.

    """
    fence, number = after
    end = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < end:
        pieces = await _next(client, job_id, fence, number)
        outcome = None if pieces else await _outcome(queue, job_id)
        if outcome and outcome.pieces:  # what came between the two looks
            pieces = await queue.pieces(job_id, fence, number)
        for piece in pieces:
            if fence and piece.fence != fence:
                raise StreamRestartedError("the answer was interrupted and begun anew: read it from the start")
            fence, number = piece.fence, piece.number
            yield piece
        if outcome:
            yield outcome
            return
    raise TimeoutError


async def _next(client: redis.asyncio.Redis, job_id: str, fence: int, number: int) -> list[Piece]:
    try:
        answer: Any = await client.xread(
            {f"bl:stream:{job_id}": f"{fence}-{number}"}, count=MOST_PIECES, block=LOOK_EVERY_MS
        )
    except (RedisError, OSError) as error:
        raise QueueUnreachableError(f"cannot read a stream: {error}") from error
    return [read_piece(entry, fields[b"d"]) for _, rows in answer or () for entry, fields in rows]


async def _outcome(queue: JobQueue, job_id: str) -> Outcome | None:
    view = await queue.view(job_id)
    if view is None:
        raise TimeoutError  # it is no longer stored
    return view.outcome
