"""Samples of the whole service: one a second however many watch it, and none while nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from bitladder.errors import BitladderError, RateLimitError
from bitladder.overview.overview_reader import Sample
from bitladder.queue.json_views.problem import problem_body
from bitladder.queue.server.outage import OUTAGE

INTERVAL_S = 1.0
# Streams at once at one intake, each a page or a `bitladder top`.
MAX_STREAMS = 100


class OverviewSampler:
    """Takes samples, and sends each to all that watch. A slow reader gets the latest one next, and misses others."""

    def __init__(self, read: Callable[[], Awaitable[Sample]], max_age_s: float = INTERVAL_S * 0.9) -> None:
        self._read, self._reading, self._max_age_s = read, asyncio.Lock(), max_age_s
        self._last: Sample | None = None
        self._last_s = 0.0  # when it was taken (monotonic)
        self._event, self._number, self._news = b"", 0, asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.watching = 0

    async def take(self) -> Sample:
        """Return a sample that is less than a second old; callers that come together share one.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        async with self._reading:
            if self._last is None or time.monotonic() - self._last_s >= self._max_age_s:
                self._last = await self._read()
                self._last_s = time.monotonic()
            return self._last

    def open(self) -> None:
        """Count a stream, which `close` ends.

        Raises:
            RateLimitError: too many are open.

        """
        if self.watching >= MAX_STREAMS:
            raise RateLimitError(
                f"{MAX_STREAMS} streams of the overview are open at this intake, and no more may be: close one, or "
                "poll GET /v1/overview",
                retry_after_s=10,
            )
        self.watching += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="overview")

    def close(self) -> None:
        """End a stream; the last one ends the sampling."""
        self.watching -= 1
        if not self.watching and self._task:
            self._task.cancel()
            self._task, self._event = None, b""

    async def aclose(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield samples as server-sent events, the latest at once."""
        seen = 0
        while True:
            while not self._event or self._number == seen:
                await self._news.wait()
            seen = self._number
            yield self._event

    async def _run(self) -> None:
        while True:
            begun_s = time.monotonic()
            self._send(await self._next_event())
            await asyncio.sleep(max(0.0, INTERVAL_S - (time.monotonic() - begun_s)))

    async def _next_event(self) -> bytes:
        try:
            sample = await self.take()
        except BitladderError as error:
            OUTAGE.warn("no sample of the service", error=str(error))
            return b"event: problem\ndata: %s\n\n" % problem_body(error.status or 500, str(error), error.code)
        return b"event: sample\ndata: %s\n\n" % msgspec.json.encode(sample.overview)

    def _send(self, event: bytes) -> None:
        self._event, self._number, news = event, self._number + 1, self._news
        self._news = asyncio.Event()
        news.set()
