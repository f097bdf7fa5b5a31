"""Background tasks of a process: started again when they end, with the reason in the log. Readiness depends on them.

A background task that ends by itself, with an error or without, has a defect, and what depends on it would wait for
ever. Failures that are expected (Redis may be unreachable) a task handles itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger()
# Before a restart: short after a first failure, longer while the defect stays, which must not keep the process busy.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
# A task that has run for so long since its restart counts as running.
SETTLED_S = 5.0
# A task that has not ended so long after its cancellation is cancelled again: longer than one takes to tidy up.
_CANCEL_AGAIN_S = 2.0


class Background:
    """The background tasks of one process; `on_change` is called whenever one goes down or runs again."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._tasks: set[asyncio.Task[None]] = set()
        self._down: set[str] = set()

    @property
    def down(self) -> list[str]:
        """The tasks that have ended and not run for long since."""
        return sorted(self._down)

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `work` again and again until stop(), or until the task that is returned is cancelled."""
        return self._add(name, self._keep(name, work))

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` to its end; an error of it is logged, as no caller may wait for it."""
        return self._add(name, self._try(name, work))

    async def stop(self) -> None:
        """Cancel all tasks, and wait until they have ended.

        Again and again: a cancellation can be lost on its way, as in Python 3.11's asyncio.wait_for when what is waited
        for ends at the same moment.
        """
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_S)

    def _add(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        try:
            while True:
                start_s, recovery = loop.time(), loop.call_later(SETTLED_S, self._mark, name, False)
                error = await _end_of(work())
                recovery.cancel()
                if loop.time() - start_s > SETTLED_S:
                    pause_s = FIRST_PAUSE_S
                _log_end("background task ended, it is started again", name, error, after_s=pause_s)
                self._mark(name, True)
                await asyncio.sleep(pause_s)
                pause_s = min(MAX_PAUSE_S, 2 * pause_s)
        finally:
            recovery.cancel()
            self._mark(name, False)

    async def _try(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        if error := await _end_of(work):
            _log_end("background task broke", name, error)

    def _mark(self, name: str, is_down: bool) -> None:
        if is_down != (name in self._down):
            (self._down.add if is_down else self._down.discard)(name)
            self._on_change()


async def in_thread(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a thread of its own, and end as it does; a cancellation leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if not ended.done():
            ended.set_exception(error) if error else ended.set_result(None)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits any more
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    await ended


async def _end_of(work: Awaitable[None]) -> BaseException | None:
    """Return why it ended, None where it simply returned; our own cancellation goes through."""
    task = asyncio.current_task()
    assert task  # noqa: S101  (a coroutine runs in a task)
    try:
        await work
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        return error  # one that leaked from within
    except Exception as error:
        return error
    return None


def _log_end(event: str, name: str, error: BaseException | None, **fields: object) -> None:
    with contextlib.suppress(OSError, ValueError):  # a log that cannot be written is no reason to stop
        log.error(event, task=name, error=repr(error) if error else "it returned", exc_info=error, **fields)
