"""The items about one job that one reader has not read yet, in order, and few of them.

All chunks are stored in Redis. In the place of those that have no room here stands an item that says so, and a reader
that comes to it reads on from what is stored.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from bitladder.contract import NO_BODY, Chunk, Outcome, State
from bitladder.queue.job_record import Ended, Item, Running

# Bytes of chunks that one reader may leave unread. An intake has as many readers as connections.
MAX_UNREAD = 128 * 1024
# Bytes of memory that a chunk costs beside its data.
_CHUNK_OVERHEAD = 200


def without_answer(outcome: Outcome) -> Outcome:
    """Return an outcome without its answer, for a reader that has read the answer in chunks."""
    if outcome.state is not State.FINISHED:
        return outcome
    return msgspec.structs.replace(outcome, body=NO_BODY, text=None)


class Inbox:
    """A queue of items for one reader.

    asyncio.Queue with wait_for would start a task for every wait, and a stream waits once per token.
    """

    def __init__(self, *, is_stream: bool = True) -> None:
        self._is_stream = is_stream
        self._items: deque[Item] = deque()
        self._unread = 0  # bytes
        self._is_closed = False  # the last item is the outcome: nothing comes behind it
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.heard_s = self._loop.time()
        self.is_stored = False  # whether the job's record is there: not known before its submission is answered

    def is_silent(self, since_s: float) -> bool:
        """Return whether the job should be looked up: its record is there, and nothing has come since then."""
        return self.is_stored and not self._is_closed and self.heard_s <= since_s

    def put(self, item: Item) -> None:
        if self._is_closed:
            return
        if isinstance(item, Outcome):
            self._is_closed = True
            self._add(without_answer(item) if self._is_stream else item)
        elif isinstance(item, Ended):
            self._add_once(item)
        elif self._is_stream:
            self._put_part(item)

    def _put_part(self, item: Chunk | Running) -> None:
        if isinstance(item, Running):
            self._add_once(item)
        elif (unread := self._unread + len(item.data) + _CHUNK_OVERHEAD) <= MAX_UNREAD:
            self._unread = unread
            self._add(item)
        else:
            self._add_once(Running(fence=item.fence))

    def _add_once(self, item: Running | Ended) -> None:
        if not (self._items and type(self._items[-1]) is type(item)):
            self._add(item)

    def _add(self, item: Item) -> None:
        self.heard_s = self._loop.time()
        self._items.append(item)
        self._wake()

    async def get(self, timeout_s: float) -> Item | None:
        """Return the next item, or None when there is none in time."""
        if not self._items:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, Chunk):
            self._unread -= len(item.data) + _CHUNK_OVERHEAD
        return item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
