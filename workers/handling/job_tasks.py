"""The jobs that a worker holds, each in a task of its own that may be interrupted until the job is being settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any

import structlog

from bitladder.contract import Claimed
from workers.handling.engine_share import Execution

log = structlog.get_logger()


class Interruption(StrEnum):
    """Why a job was interrupted."""

    CANCELLED = "cancelled"  # by its client
    LOST = "lease lost"  # another worker has it now
    DRAINED = "drained"
    YIELDED = "yielded"  # a more urgent job needs the slot
    BROKEN = "worker defect"


class JobTask:
    """One job and its task."""

    __slots__ = ("execution", "has_begun", "has_output", "interruption", "is_settling", "job", "task")

    def __init__(self, job: Claimed) -> None:
        self.job = job
        self.task: asyncio.Task[None] | None = None
        self.interruption: Interruption | None = None
        self.has_begun = False  # the engine has been asked
        self.execution: Execution | None = None  # from then on
        self.has_output = False  # a reader may have seen some of it
        self.is_settling = False  # executed; from here on nothing may interrupt it

    def interrupt(self, reason: Interruption) -> None:
        """Cancel the execution; the first reason counts."""
        if self.task and not self.is_settling:
            self.interruption = self.interruption or reason
            self.task.cancel()


class JobTasks:
    """Starts a task for each job. `handle` never raises for what the job did; `on_end` is told each id."""

    def __init__(self, handle: Callable[[JobTask], Coroutine[Any, Any, None]], on_end: Callable[[str], None]) -> None:
        self._handle, self._on_end = handle, on_end
        self._held: dict[str, JobTask] = {}

    def __len__(self) -> int:
        return len(self._held)

    def fences(self) -> dict[str, int]:
        """Return the fences of all jobs held, by id. Any thread may ask."""
        return {job_id: job_task.job.fence for job_id, job_task in self._held.copy().items()}

    def held(self) -> list[JobTask]:
        """Return all jobs held, the oldest claim first."""
        return list(self._held.values())

    def start(self, job: Claimed) -> None:
        """Run a job that was just claimed."""
        self.interrupt(job.job_id, Interruption.LOST)  # an earlier claim of the same job, whose lease was lost
        job_task = self._held[job.job_id] = JobTask(job)
        job_task.task = asyncio.create_task(self._handle(job_task), name=job.job_id)
        job_task.task.add_done_callback(lambda task: self._ended(job_task, task))

    def interrupt(self, job_id: str, reason: Interruption, fence: int | None = None) -> None:
        """Interrupt one job, where it is here and not being settled yet; with a fence, only the claim that has it."""
        job_task = self._held.get(job_id)
        if job_task and fence in (None, job_task.job.fence):
            job_task.interrupt(reason)

    def interrupt_all(self, reason: Interruption) -> None:
        for job_task in list(self._held.values()):
            job_task.interrupt(reason)

    async def wait(self, timeout_s: float) -> None:
        """Return when all jobs have ended, or after that time."""
        if tasks := [job_task.task for job_task in self._held.values() if job_task.task]:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _ended(self, job_task: JobTask, task: asyncio.Task[None]) -> None:
        job_id = job_task.job.job_id
        if not task.cancelled() and (error := task.exception()):
            # Redis still holds the job in this worker's name. The next renewals find that the worker does not know it.
            log.error("a job's end was lost", job_id=job_id, exc_info=error)
        if self._held.get(job_id) is job_task:
            del self._held[job_id]
            self._on_end(job_id)
