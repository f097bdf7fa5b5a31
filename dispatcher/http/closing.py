"""How an intake ends, as its handlers see it: first it is unready, and then all waits are interrupted.

The jobs go on. A client that waits for one is told where it goes on, in the form that it asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

import msgspec

from bitladder.contract import Chunk
from bitladder.errors import IntakeClosingError
from bitladder.ids import in_url, readable
from bitladder.queue.json_views.problem import problem_body
from dispatcher.http.problems import problem
from dispatcher.http.responses import Response

# When the client of a stream should come back: another intake serves already, or this one is started again.
_RETRY_MS = 1000

T = TypeVar("T")


class Closing:
    """The shutdown of one intake."""

    def __init__(self) -> None:
        self.is_draining = False  # it is unready, but serves all requests
        self.has_ended_waits = False
        self.waits: dict[asyncio.Task[object], _Wait] = {}

    def interrupt(self) -> None:
        """Interrupt all waits, those that begin later too."""
        self.is_draining = self.has_ended_waits = True
        for wait in list(self.waits.values()):
            wait.interrupt()

    def interrupts(self, job_id: str = "") -> _Wait:
        """Return a context for one wait of one task; IntakeClosingError ends it when the intake closes."""
        return _Wait(self, job_id)

    async def interruptible(self, items: AsyncIterator[T], job_id: str) -> AsyncIterator[T]:
        """Yield the items of a job as they arrive.

        Raises:
            IntakeClosingError: the intake closes before the last one.

        """
        wait = self.interrupts(job_id)
        while True:
            with wait:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item


class _Wait:
    """Like asyncio.timeout, without a time. A class, because a stream enters it for every token."""

    def __init__(self, closing: Closing, job_id: str) -> None:
        self._closing, self._job_id = closing, job_id
        self._task: asyncio.Task[object] | None = None
        self._is_interrupted = False
        self._cancellations = 0  # by others, before the wait began

    def interrupt(self) -> None:
        if self._task and not self._is_interrupted:
            self._is_interrupted = True
            self._task.cancel()

    def __enter__(self) -> None:
        if self._closing.has_ended_waits:
            raise IntakeClosingError(self._job_id)
        self._task = task = asyncio.current_task()
        assert task  # noqa: S101  (a handler runs in a task)
        self._cancellations = task.cancelling()
        self._closing.waits[task] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task  # noqa: S101  (it was entered)
        self._closing.waits.pop(self._task, None)
        if self._is_interrupted and self._task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:
            raise IntakeClosingError(self._job_id) from None


def moved(job_id: str, url: str, *, is_repeatable: bool) -> Response:
    """Tell an awaiting client where its job goes on; with an idempotency key it may repeat the request instead."""
    headers = {
        "X-Job-Id": in_url(job_id),
        "Location": url,
        "Retry-After": "1",
        "X-Should-Retry": str(is_repeatable).lower(),
    }
    message = f"this intake is being stopped; the job goes on: GET {url}"
    return problem(503, message, IntakeClosingError.code, headers=headers)


def restart_message(url: str, last_id: str) -> str:
    """Return what the client of a stream is told that goes on elsewhere."""
    return f"this intake is being stopped; the stream goes on: GET {url} with Last-Event-ID: {last_id}"


def restart_event(job_id: str, url: str, last_id: str) -> bytes:
    """Return the last event of a stream that goes on elsewhere; OpenAI's clients raise it as an error."""
    position = {"job_id": readable(job_id), "url": url, "last_event_id": last_id}
    body = msgspec.json.decode(problem_body(503, restart_message(url, last_id), IntakeClosingError.code))
    return b"event: restart\nretry: %d\ndata: %s\n\n" % (_RETRY_MS, msgspec.json.encode(body | position))


def events_of(chunk: Chunk) -> list[bytes]:
    """Return the server-sent events of a chunk."""
    return [event for event in chunk.data.split(b"\n\n") if event]


def last_event_id(chunk: Chunk | None) -> str:
    """Return the id of a chunk's last event, as GET /v1/jobs/{job_id}/stream gives it; None: nothing was read yet."""
    return "0-0-0" if chunk is None else f"{chunk.fence}-{chunk.number}-{len(events_of(chunk))}"
