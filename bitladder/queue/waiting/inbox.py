"""What is told of one job to one reader, in order, for as long as the reader lets it lie: little of it is kept.

Whatever there is no room for is stored. So in its place stands a word that there is more, and the reader, when it gets
there, reads on from what is stored.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from bitladder.contract import NO_BODY, Chunk, Outcome, State
from bitladder.queue.job_record import Ended, Item, Running

# Bytes of chunks that one reader may leave unread. An intake has as many readers as connections.
MAX_UNREAD = 128 * 1024
# What a chunk costs beside its bytes.
PLACE_BYTES = 200


def without_answer(outcome: Outcome) -> Outcome:
    """Return what is left for a stream's reader to know when it has read the answer in chunks."""
    if outcome.state is not State.FINISHED:
        return outcome
    return msgspec.structs.replace(outcome, body=NO_BODY, text=None)


class Inbox:
    """Instead of asyncio.Queue and wait_for, which start a task for every wait: a stream waits once per token."""

    def __init__(self, *, is_stream: bool = True) -> None:
        self._is_stream = is_stream
        self._items: deque[Item] = deque()
        self._unread = 0  # bytes
        self._is_over = False  # the last item is the outcome: nothing comes behind it
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.heard_s = self._loop.time()
        self.is_stored = False  # the job's record is there: until its submission is answered nobody may look for it

    def is_silent(self, since_s: float) -> bool:
        """Return whether the job should be looked up: its record is there, and nothing was heard of it since then."""
        return self.is_stored and not self._is_over and self.heard_s <= since_s

    def put(self, item: Item) -> None:
        if self._is_over:
            return
        if isinstance(item, Outcome):
            self._is_over = True
            self._add(without_answer(item) if self._is_stream else item)
        elif isinstance(item, Ended):
            self._add_once(item)
        elif self._is_stream:
            self._put_part(item)

    def _put_part(self, item: Chunk | Running) -> None:
        if isinstance(item, Running):
            self._add_once(item)
        elif (unread := self._unread + len(item.data) + PLACE_BYTES) <= MAX_UNREAD:
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
            self._unread -= len(item.data) + PLACE_BYTES
        return item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
