"""The chunks of one streamed answer on their way to whoever reads them: numbered, in order, and none of them lost.

A chunk that Redis has no memory for is kept and sent again. Meanwhile nothing more is read from the engine: one chunk
of each job is all that is kept. The wait has a bound: then the answer goes on without it, and readers are told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from bitladder.contract import Chunk, Claimed, Emitted
from workers.metrics import WorkerMetrics

log = structlog.get_logger()
# What one execution waits for room, all its chunks together: the jobs that end in this time leave some.
PATIENCE_S = 30.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5


class Chunks:
    """Sends the chunks of one execution."""

    def __init__(self, job: Claimed, send: Callable[[str, Chunk], Awaitable[Emitted]], metrics: WorkerMetrics) -> None:
        self._job, self._send, self._metrics = job, send, metrics
        self._left_s = PATIENCE_S
        self.count = 0

    async def put(self, data: bytes) -> bool:
        """Send one chunk; False when the job is no longer this worker's."""
        self.count += 1
        chunk = Chunk(fence=self._job.fence, number=self.count, data=data)
        pause_s = FIRST_PAUSE_S
        while (became := await self._send(self._job.job_id, chunk)) is Emitted.NO_ROOM and self._left_s > 0:
            await asyncio.sleep(pause_s)
            self._left_s -= pause_s
            pause_s = min(MAX_PAUSE_S, 2 * pause_s)
        if became is Emitted.NO_ROOM:
            self._metrics.unstored.inc()
            log.warning("chunk of a stream not stored: Redis has no room", job_id=self._job.job_id, number=self.count)
        return became is not Emitted.LOST
