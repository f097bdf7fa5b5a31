"""Waiting for outcomes and tokens: one subscribed connection per process, one inbox per awaited job.

Order matters: the process's channel is subscribed before anything is submitted with it, and a wait for any other job
subscribes first, then reads the stored outcome, then waits. So no outcome can fall between.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from dispatcher.contract import Outcome, Piece
from dispatcher.errors import BitladderError, QueueUnreachableError
from dispatcher.ids import read_word
from dispatcher.queue.connection import connect
from dispatcher.queue.job_queue import JobQueue
from dispatcher.sections import RedisSettings

log = structlog.get_logger()
# After a lost connection messages may be missing: everybody looks at the stored outcome again this often.
RECHECK_S = 5.0

# Waiters of jobs that other processes submitted hold a connection each; more than these are told to try again.
MOST_WAITERS = 500

Item = Piece | Outcome


class StreamRestartedError(BitladderError):
    """The answer began anew after some of it had been read: its first execution was lost."""

    status = 503
    code = "stream_restarted"


class Inbox:
    """What is published for one job, in order, for one reader.

    Instead of asyncio.Queue and wait_for, which start a task for every wait: a stream waits once per token.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    async def get(self, timeout_s: float) -> Item | None:
        """Return the next item, or None when there is none in time."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._items.popleft() if self._items else None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class OutcomeInbox:
    """Delivers what workers publish to whoever awaits it in this process."""

    def __init__(self, settings: RedisSettings, queue: JobQueue) -> None:
        self.channel = f"bl:reply:{secrets.token_hex(8)}"
        self._queue = queue
        self._client: redis.asyncio.Redis = connect(settings, wait_s=30)
        self.waiters: redis.asyncio.Redis = connect(settings, wait_s=30, most_connections=MOST_WAITERS)
        self._waiting: dict[str, Inbox] = {}
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    async def start(self) -> None:
        """Subscribe in the background; returns at once, also when Redis is away."""
        self._task = asyncio.create_task(self._listen_for_ever(), name="outcome inbox")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._client.aclose()
        await self.waiters.aclose()

    async def ready(self, timeout_s: float) -> bool:
        """Wait until the channel is subscribed."""
        try:
            await asyncio.wait_for(self._subscribed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    @contextlib.contextmanager
    def opened(self, job_id: str) -> Iterator[Inbox]:
        """Collect what is published for a job while the block runs."""
        inbox = Inbox()
        self._waiting[job_id] = inbox
        try:
            yield inbox
        finally:
            self._waiting.pop(job_id, None)

    async def items(self, job_id: str, inbox: Inbox, timeout_s: float) -> AsyncIterator[Item]:
        """Yield every piece once and in order, then the outcome, which is last.

        Messages are only hints: what a lost connection has swallowed is read from the stored stream.

        Raises:
            TimeoutError: there was no outcome in time.
            StreamRestartedError: a later execution began the answer anew.

        """
        end = asyncio.get_running_loop().time() + timeout_s
        fence, number = 0, 0
        while (left := end - asyncio.get_running_loop().time()) > 0:
            item = await self._next(job_id, inbox, min(left, RECHECK_S))
            if item is None:
                continue
            for piece in await self._up_to(job_id, item, fence, number):
                if number and piece.fence != fence:
                    raise StreamRestartedError("the answer was interrupted and begun anew: send the request again")
                fence, number = piece.fence, piece.number
                yield piece
            if isinstance(item, Outcome):
                yield item
                return
        raise TimeoutError

    async def _up_to(self, job_id: str, item: Item, fence: int, number: int) -> list[Piece]:
        """Return the pieces between the last one read and this item, the item included if it is one."""
        if isinstance(item, Outcome):
            return await self._queue.pieces(job_id, fence, number) if item.pieces > number else []
        if (item.fence, item.number) <= (fence, number):
            return []
        is_next = item.number == (number + 1 if item.fence == fence else 1)
        return [item] if is_next else await self._queue.pieces(job_id, fence, number)

    async def _next(self, job_id: str, inbox: Inbox, wait_s: float) -> Item | None:
        if item := await inbox.get(wait_s):
            return item
        with contextlib.suppress(Exception):  # Redis may be away: the next look may find it
            view = await self._queue.view(job_id)
            return view.outcome if view else None
        return None

    async def wait(self, job_id: str, timeout_s: float) -> Outcome | None:
        """Wait for the outcome of any job, submitted anywhere; None when it is not over in time.

        Raises:
            QueueUnreachableError: Redis is away, or too many wait already.

        """
        try:
            return await self._wait(job_id, timeout_s)
        except (RedisError, OSError) as error:
            raise QueueUnreachableError(f"cannot wait for an outcome: {error}") from error

    async def _wait(self, job_id: str, timeout_s: float) -> Outcome | None:
        async with self.waiters.pubsub() as pubsub:
            await pubsub.subscribe(f"bl:done:{job_id}")
            end = asyncio.get_running_loop().time() + timeout_s
            while True:
                view = await self._queue.view(job_id)
                left = end - asyncio.get_running_loop().time()
                if view is None or view.outcome or left <= 0:
                    return view.outcome if view else None
                await _any_message(pubsub, min(left, RECHECK_S))

    async def _listen_for_ever(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self._listen()
            self._subscribed.clear()
            await asyncio.sleep(0.2)

    async def _listen(self) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self.channel)
            while True:
                message = await pubsub.get_message(timeout=10)
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "subscribe":
                    self._subscribed.set()
                elif message["type"] == "message":
                    self._deliver(message["data"])

    def _deliver(self, message: bytes) -> None:
        for kind, job_id, fence, number, body in unpack_message(message):
            inbox = self._waiting.get(job_id)
            if inbox is None:
                continue
            if kind == b"t":
                inbox.put(Piece(fence=fence, number=number, data=body))
            elif outcome := self._queue.seal.decode(job_id, body):
                inbox.put(outcome)
            else:
                log.warning("unreadable outcome", job_id=job_id)  # the stored one is looked at again in a moment


def unpack_message(message: bytes) -> Iterator[tuple[bytes, str, int, int, bytes]]:
    """Yield kind (d or t), job id, fence, number and content of each item, as `note` in prelude.lua writes them."""
    start = 0
    while (end := message.find(b"\n", start)) >= 0:
        kind, job_id, fence, number, size = message[start:end].split(b" ")
        start = end + 1 + int(size)
        yield kind, read_word(job_id), int(fence), int(number), message[end + 1 : start]


async def _any_message(pubsub: redis.asyncio.client.PubSub, wait_s: float) -> None:
    end = asyncio.get_running_loop().time() + wait_s
    while (left := end - asyncio.get_running_loop().time()) > 0:
        message = await pubsub.get_message(timeout=left)
        if message and message["type"] == "message":
            return
