"""The chunks of streamed answers on their way to Redis: numbered, in order, and none of them lost.

A chunk that Redis has no memory for is sent again. Meanwhile nothing more is read from the engine, so at most one chunk
of each job is held here. That wait is bounded: then the answer goes on without the chunk, and its readers are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from bitladder.contract import Chunk, Claimed, Emitted
from bitladder.process.batching import Batcher
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import ByteBudget
from workers.metrics import WorkerMetrics
from workers.retry import until_reachable

log = structlog.get_logger()
# How long one execution waits for memory in Redis, for all its chunks together: jobs that end meanwhile free some.
MAX_MEMORY_WAIT_S = 30.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5
MAX_BUNDLE = 256


class ChunkSender:
    """Sends the chunks of one worker's jobs, many in one call."""

    def __init__(self, queue: JobQueue, worker: str, metrics: WorkerMetrics) -> None:
        self._queue, self._worker, self.metrics = queue, worker, metrics
        self._batcher: Batcher[tuple[str, Chunk], Emitted] = Batcher(self._send_many, max_items=MAX_BUNDLE)
        self._budget = ByteBudget()  # of one call

    def send(self, job_id: str, chunk: Chunk) -> Awaitable[Emitted]:
        """Send one chunk, for as long as it takes."""
        return self._batcher.call((job_id, chunk))

    async def _send_many(self, chunks: Sequence[tuple[str, Chunk]]) -> Sequence[Emitted]:
        async def send_first() -> Sequence[Emitted]:
            bundle = self._budget.first(chunks, lambda item: len(item[1].data))
            with self._budget.tried():
                return await self._queue.emit(self._worker, bundle)

        return await until_reachable(send_first)


class Chunks:
    """The chunks of one execution."""

    def __init__(
        self, sender: ChunkSender, job: Claimed, on_first: Callable[[], None], on_lost: Callable[[], None]
    ) -> None:
        self._sender, self._job, self._on_first, self._on_lost = sender, job, on_first, on_lost
        self._left_s = MAX_MEMORY_WAIT_S
        self.count = 0

    async def send(self, data: bytes) -> None:
        """Send the next chunk. Where the job is no longer this worker's, call `on_lost` and cancel the execution."""
        if not self.count:
            self._on_first()
        self.count += 1
        chunk = Chunk(fence=self._job.fence, number=self.count, data=data)
        pause_s = FIRST_PAUSE_S
        while (emitted := await self._sender.send(self._job.job_id, chunk)) is Emitted.NO_ROOM and self._left_s > 0:
            await asyncio.sleep(pause_s)
            self._left_s -= pause_s
            pause_s = min(MAX_PAUSE_S, 2 * pause_s)
        if emitted is Emitted.NO_ROOM:
            self._sender.metrics.unstored.inc()
            log.warning("chunk of a stream not stored: Redis has no room", job_id=self._job.job_id, number=self.count)
        elif emitted is Emitted.LOST:
            self._on_lost()
            raise asyncio.CancelledError
