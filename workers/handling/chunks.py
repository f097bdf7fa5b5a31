"""The chunks of streamed answers on their way to Redis: numbered, in order, none of them lost, and none sent twice.

A chunk that Redis has no memory for is sent again. Meanwhile nothing more is read from the engine, so at most one chunk
of each job is held here. That wait is bounded: then the answer goes on without the chunk, and its readers are told.

Where an earlier execution has sent some of the answer, and an engine is likely to give the same one again, it is held
back for as long as it is the same (replay.py), and goes on behind that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec
import structlog

from bitladder.contract import Chunk, Claimed, Emitted, Outcome, Request, State
from bitladder.process.batching import Batcher
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import ByteBudget
from bitladder.queue.waiting.reading import Reading, StreamGapError, StreamRestartedError
from bitladder.routing.body import with_field
from workers.handling.replay import DifferentAnswerError, Replay, is_repeatable
from workers.metrics.worker_metrics import WorkerMetrics
from workers.retry import until_reachable

log = structlog.get_logger()
# How long one execution waits for memory in Redis, for all its chunks together: jobs that end meanwhile free some.
MAX_MEMORY_WAIT_S = 30.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5
MAX_BUNDLE = 256
# An answer of which more was sent is begun anew: 20,000 tokens, as vLLM writes them.
_MAX_REPLAYED_BYTES = 4 * 1024 * 1024


class ChunkSender:
    """Sends the chunks of one worker's jobs, many in one call."""

    def __init__(self, queue: JobQueue, worker: str, metrics: WorkerMetrics) -> None:
        self._queue, self._worker, self.metrics = queue, worker, metrics
        self._batcher: Batcher[tuple[str, Chunk], Emitted] = Batcher(self._send_many, max_items=MAX_BUNDLE)
        self._budget = ByteBudget()  # of one call

    def send(self, job_id: str, chunk: Chunk) -> Awaitable[Emitted]:
        """Send one chunk, for as long as it takes."""
        return self._batcher.call((job_id, chunk))

    async def sent_of(self, job_id: str) -> list[Chunk]:
        """Return what earlier executions of a job have sent; nothing where some of it is missing, or it is too much."""
        reading, sent, size = Reading(), list[Chunk](), 0
        while size <= _MAX_REPLAYED_BYTES:
            last = (sent[-1].fence, sent[-1].number) if sent else (0, 0)
            more = await until_reachable(partial(self._queue.chunks, job_id, *last))
            if not more:
                return sent
            try:
                sent += map(reading.take, more)
            except (StreamGapError, StreamRestartedError):
                break
            size += sum(len(chunk.data) for chunk in more)
        return []

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
        self.count = 0  # those of earlier executions included, where this one goes on with their answer
        self._after = 0  # it does, and has sent nothing of its own: fence of the last chunk
        self._may_go_on = False
        self._replay: Replay | None = None
        self._held = list[bytes]()  # of the answer that the replay compares

    def begin(self, request: Request) -> None:
        """Note what is executed. Where readers may have seen some of its answer, see whether it can go on with that."""
        self._may_go_on = self._job.has_returned and is_repeatable(request.endpoint, bytes(request.body))

    async def send(self, data: bytes) -> None:
        """Send the next chunk. Where the job is no longer this worker's, call `on_lost` and cancel the execution."""
        if self._may_go_on:
            self._may_go_on = False
            await self._read_sent()
        if self._replay:
            data = self._behind_sent(self._replay, data)
        if data:
            await self._send(data)

    async def end(self, outcome: Outcome) -> Outcome:
        """Return the outcome with what there is to say of its stream."""
        if outcome.state is State.FINISHED and self._replay and not self._replay.is_through:
            await self._send(self._begun_anew())  # it is shorter than what was sent
        outcome = msgspec.structs.replace(outcome, chunks=self.count, streamed_by=self._after)
        if self._replay and outcome.answer:  # one answer has one id
            body = outcome.answer
            for name, value in self._replay.head.items():
                body = with_field(body, name, value)
            outcome = msgspec.structs.replace(outcome, body=msgspec.Raw(body))
        return outcome

    async def _read_sent(self) -> None:
        sent = await self._sender.sent_of(self._job.job_id)
        if not sent:
            return
        try:
            self._replay = Replay(chunk.data for chunk in sent)
        except DifferentAnswerError:
            return
        self.count, self._after = sent[-1].number, sent[-1].fence
        self._on_first()

    def _behind_sent(self, replay: Replay, data: bytes) -> bytes:
        """Return what of a chunk is to be sent."""
        if not replay.is_through:
            self._held.append(data)
        try:
            return replay.behind(data)
        except DifferentAnswerError:
            return self._begun_anew()

    def _begun_anew(self) -> bytes:
        """Begin the answer anew; its readers are told by the number of its first chunk. Return what was held back."""
        log.info("stream begun anew: the answer differs", job_id=self._job.job_id, sent=self.count)
        self._replay, self.count, self._after = None, 0, 0
        return b"".join(self._held)

    async def _send(self, data: bytes) -> None:
        if not self.count:
            self._on_first()
        self.count += 1
        chunk = Chunk(fence=self._job.fence, number=self.count, data=data, after=self._after)
        self._after = 0
        self._held.clear()
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
