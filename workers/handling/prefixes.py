"""Note in Redis which beginnings of prompts this worker has served last: jobs that share one wake it first."""

from __future__ import annotations

import asyncio
import contextlib

from redis.exceptions import RedisError

from bitladder.queue.calls.submit import prefix_key
from bitladder.queue.job_queue import JobQueue
from workers.identity import Identity

# So many are noted at most in one moment: more are noted in no time that would help anybody.
_MAX_PENDING = 1024
# Longer than that, other prompts have most likely taken the cache.
_KEPT_MS = 600_000


class PrefixNotes:
    """Collects the prefixes of one moment. No job waits for a note, and one that is lost costs a hit."""

    def __init__(self, queue: JobQueue, worker: Identity) -> None:
        self._queue, self._worker = queue, worker
        self._pending: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def note(self, prefix: str) -> None:
        if len(self._pending) < _MAX_PENDING:
            self._pending.add(prefix)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        worker = self._worker
        while self._pending:
            prefixes, self._pending = self._pending, set()
            with contextlib.suppress(RedisError, OSError):
                async with self._queue.client.pipeline(transaction=False) as pipe:
                    for prefix in prefixes:
                        pipe.set(prefix_key(worker.model, worker.tier, prefix), worker.name, px=_KEPT_MS)
                    await pipe.execute()
