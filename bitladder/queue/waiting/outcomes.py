"""Waiting for outcomes and tokens: one channel per process, one inbox per waiter, wherever the job was submitted.

A job's record names the channels to which its outcome and tokens are published. Its submission names one. A process
that waits for another process's job adds its own channel (`follow`) and then reads what is stored: so no outcome is
missed.
Messages are hints: the jobs of all waiters that have received nothing for a while are looked up together, in a few
calls. So a lost message costs seconds, and as soon it is noticed that a job is gone or was ended by another program.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog

from bitladder.contract import Chunk, Outcome
from bitladder.errors import QueueUnreachableError
from bitladder.ids import read_word, readable
from bitladder.process.batching import Batcher
from bitladder.process.supervision import Background
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.job_record import Ended, Item, Running
from bitladder.queue.waiting.inbox import Inbox, without_answer
from bitladder.queue.waiting.reading import Reading
from bitladder.queue.waiting.subscription import Subscription
from bitladder.settings.redis_section import RedisSettings

log = structlog.get_logger()
# What a reader gets of a job: its chunks, then its outcome.
Heard = Chunk | Outcome
# What a look-up says of a job; None: it waits.
LookedUp = Outcome | Ended | Running | None
# The job of a waiter that has received nothing for so long is looked up.
POLL_INTERVAL_S = 2.0
# After messages were missed all jobs are looked up, but no sooner than this after the last time.
_MIN_POLL_INTERVAL_S = 0.25
# Jobs and bytes of outcomes per call: few enough to delay no other client. Waiters read the outcomes that do not fit.
_MAX_LOOKED_UP, _MAX_LOOK_BYTES = 250, 1024 * 1024
# A fence is a time in steps of 10 µs: this one comes in 2286. A chunk with a higher one is no worker's, and a reader
# would take it for a later execution.
MAX_FENCE = 10**15
# Behind it are all stored chunks of a stream.
_BEGINNING = (0, 0)
# Pause between two tries to read what is stored, while Redis is unreachable.
_RETRY_S = 0.5

Read = TypeVar("Read")


class Listener(Protocol):
    """What hears of one job: an inbox, or the place where the outcomes of many jobs come together."""

    def put(self, item: Item) -> None:
        """Take what was heard."""

    def is_silent(self, since_s: float) -> bool:
        """Return whether the job should be looked up: its record is there, and nothing has come since then."""


class OutcomeInbox:
    """Delivers what workers publish to the waiters in this process."""

    def __init__(self, settings: RedisSettings, queue: JobQueue) -> None:
        self.channel = f"bl:reply:{secrets.token_hex(8)}"
        self._queue = queue
        self._subscription = Subscription(settings, self.channel, self._deliver, self._missed)
        self._waiting: dict[str, list[Listener]] = {}
        self._hurry = asyncio.Event()
        self._follow: Batcher[str, LookedUp] = Batcher(self._follow_many, max_items=_MAX_LOOKED_UP)

    def start(self, background: Background) -> None:
        """Start to subscribe and to look up jobs; returns at once, also when Redis is unreachable."""
        background.start("outcome channel", self._subscription.run)
        background.start("look up of waiters' jobs", self._poll)

    async def aclose(self) -> None:
        await self._subscription.aclose()

    @property
    def is_connected(self) -> bool:
        """Whether the channel is subscribed. It is the first to notice that Redis has closed its connections."""
        return self._subscription.subscribed.is_set()

    async def ready(self, timeout_s: float) -> bool:
        """Wait until the channel is subscribed."""
        try:
            await asyncio.wait_for(self._subscription.subscribed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def is_read(self, job_id: str) -> bool:
        """Return whether somebody in this process waits for a job."""
        return job_id in self._waiting

    @contextlib.contextmanager
    def opened(self, job_id: str, *, is_stream: bool) -> Iterator[Inbox]:
        """Collect what is published for a job while the block runs."""
        inbox = Inbox(is_stream=is_stream)
        self.attach(job_id, inbox)
        try:
            yield inbox
        finally:
            self.detach(job_id, inbox)

    def attach(self, job_id: str, listener: Listener) -> None:
        """Let a listener hear of a job, until it is detached."""
        self._waiting.setdefault(job_id, []).append(listener)

    def detach(self, job_id: str, listener: Listener) -> None:
        self._waiting[job_id].remove(listener)
        if not self._waiting[job_id]:
            del self._waiting[job_id]

    async def wait(self, job_id: str, timeout_s: float) -> Outcome | None:
        """Wait for the outcome of any job, submitted anywhere; None when it has not ended in time.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        with self.opened(job_id, is_stream=False) as inbox:
            if item := await self._follow.call(job_id):
                inbox.put(item)
            return await self.outcome(job_id, inbox, timeout_s)

    async def outcome(self, job_id: str, inbox: Inbox, timeout_s: float) -> Outcome | None:
        """Return the outcome that comes to an inbox; None when there is none in time."""
        loop = asyncio.get_running_loop()
        inbox.is_stored, end = True, loop.time() + timeout_s
        while (left := end - loop.time()) > 0:
            item = await inbox.get(left)
            if isinstance(item, Ended):
                item = await self._end_of(job_id, end)
            if isinstance(item, Outcome):
                return item
        return None

    async def follow(self, job_id: str, timeout_s: float, after: tuple[int, int] = (0, 0)) -> AsyncGenerator[Heard]:
        """Yield the chunks of any job behind that one, execution and number, then its outcome; see `items`.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        with self.opened(job_id, is_stream=True) as inbox:
            if first := await _read(partial(self._follow.call, job_id), asyncio.get_running_loop().time() + timeout_s):
                inbox.put(first)
            async for item in self.items(job_id, inbox, timeout_s, after):
                yield item

    async def items(
        self, job_id: str, inbox: Inbox, timeout_s: float, after: tuple[int, int] = (0, 0)
    ) -> AsyncIterator[Heard]:
        """Yield every chunk once and in order, then the outcome, which is last. Missed chunks are read from Redis.

        Raises:
            TimeoutError: there was no outcome in time.
            StreamRestartedError: a later execution began the answer anew.
            StreamGapError: some of it is not stored.

        """
        inbox.is_stored = True
        loop, reading = asyncio.get_running_loop(), Reading(*after)
        end = loop.time() + timeout_s
        while (left := end - loop.time()) > 0:
            item = await inbox.get(left)
            if isinstance(item, Ended):
                ended = await self._end_of(job_id, end)
                item = without_answer(ended) if isinstance(ended, Outcome) else ended
            if isinstance(item, Chunk) and reading.is_next(item):
                yield reading.take(item)
            elif item is not None:
                async for chunk in self._stored(job_id, reading, item, end):
                    yield chunk
            if isinstance(item, Outcome):
                reading.close(item)
                yield item
                return
        raise TimeoutError

    async def _stored(
        self, job_id: str, reading: Reading, item: Chunk | Outcome | Running, end: float
    ) -> AsyncIterator[Chunk]:
        """Yield what is stored between the last chunk read and this item, the item included if it is a chunk."""
        is_past = isinstance(item, Chunk) and reading.is_past(item)
        if is_past or (isinstance(item, Outcome) and not reading.lacks(item)):
            return
        start = reading.start_of(item)
        while chunks := await _read(partial(self._queue.chunks, job_id, *start), end):
            if reading.begins_before(chunks[0]) and start != _BEGINNING:
                start = _BEGINNING
                continue
            for chunk in chunks:
                yield reading.take(chunk)
            start = reading.start_of(item)
        if isinstance(item, Chunk) and not reading.is_past(item):
            yield reading.take(item)

    async def _end_of(self, job_id: str, end: float) -> Outcome | Running | None:
        """Read how a job ended; it may have been released from the dead letters since."""
        (item,) = await _read(partial(self._queue.look, [job_id]), end)
        return None if isinstance(item, Ended) else item

    async def _follow_many(self, job_ids: Sequence[str]) -> Sequence[LookedUp]:
        return await self._queue.look(job_ids, channel=self.channel, max_bytes=_MAX_LOOK_BYTES)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_MIN_POLL_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), POLL_INTERVAL_S - _MIN_POLL_INTERVAL_S)
            since_s = asyncio.get_running_loop().time() - (0 if self._hurry.is_set() else POLL_INTERVAL_S)
            self._hurry.clear()
            with contextlib.suppress(QueueUnreachableError):  # the next look-up may succeed
                await self._look_up(since_s)

    async def _look_up(self, since_s: float) -> None:
        """Look up the jobs whose waiters have received nothing since then."""
        silent = [job_id for job_id, boxes in self._waiting.items() if any(box.is_silent(since_s) for box in boxes)]
        for start in range(0, len(silent), _MAX_LOOKED_UP):
            job_ids = silent[start : start + _MAX_LOOKED_UP]
            for job_id, item in zip(job_ids, await self._queue.look(job_ids, max_bytes=_MAX_LOOK_BYTES), strict=True):
                if item:
                    self._put(job_id, item)

    def _missed(self) -> None:
        self._hurry.set()

    def _deliver(self, message: bytes) -> None:
        for kind, job_id, fence, number, body in unpack_message(message):
            if job_id not in self._waiting:
                continue
            if kind == b"t" and 0 < fence < MAX_FENCE and number > 0:
                self._put(job_id, Chunk(fence=fence, number=number, data=body))
            elif kind == b"d" and not body:
                self._put(job_id, Ended())
            elif kind == b"d" and (outcome := self._queue.signer.decode(job_id, body)):
                self._put(job_id, outcome)
            else:
                log.warning("message about a job not understood", job_id=readable(job_id))
                self._missed()  # what is stored is looked up in a moment

    def _put(self, job_id: str, item: Item) -> None:
        for listener in tuple(self._waiting.get(job_id, ())):
            listener.put(item)


async def _read(read: Callable[[], Awaitable[Read]], end: float) -> Read:
    """Read what is stored; while Redis is unreachable, try again until `end`."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return await read()
        except QueueUnreachableError:
            if loop.time() + _RETRY_S > end:
                raise
            await asyncio.sleep(_RETRY_S)


def unpack_message(message: bytes) -> Iterator[tuple[bytes, str, int, int, bytes]]:
    """Yield kind (d or t), job id, fence, number and content of each item (scripts/parts/messages.lua).

    Raises:
        ValueError: the message is in another form, from there on.

    """
    start = 0
    while start < len(message):
        end = message.index(b"\n", start)
        kind, job_id, fence, number, size = message[start:end].split(b" ")
        start = end + 1 + int(size)
        if not end < start <= len(message):
            raise ValueError("an item of the message must have the size that its head says")
        yield kind, read_word(job_id), int(fence), int(number), message[end + 1 : start]
