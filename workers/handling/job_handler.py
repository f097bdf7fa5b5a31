"""One job from its claim to its settlement: wait for isolation, execute, settle."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from bitladder.contract import Request
from workers.engine_health.traffic import Traffic
from workers.engines.base import CLAIM
from workers.execute import Executed, Executor, Verdict, expired_in_queue
from workers.handling.begun import BegunReporter
from workers.handling.chunks import Chunks, ChunkSender
from workers.handling.job_tasks import Interruption, JobTask
from workers.handling.settle import Settler
from workers.isolation import Isolation

log = structlog.get_logger()


class JobHandler:
    """Handles the jobs of one worker."""

    def __init__(
        self,
        executor: Executor,
        isolation: Isolation,
        traffic: Traffic,
        settler: Settler,
        chunks: ChunkSender,
        begun: BegunReporter,
    ) -> None:
        self._executor, self._isolation, self._traffic, self._settler = executor, isolation, traffic, settler
        self._chunks, self._begun = chunks, begun

    async def handle(self, job_task: JobTask) -> None:
        """Run one job to its settlement, however its execution ends."""
        job = job_task.job
        CLAIM.set(job)
        done, reason = None, Interruption.BROKEN
        try:
            done = await self._execute(job_task)
        except asyncio.CancelledError:
            reason = job_task.interruption or Interruption.DRAINED
        except Exception:
            log.exception("job broke the worker", job_id=job.job_id)
        # From here on nothing may stop the task: what has become of the job must reach Redis.
        job_task.is_settling = True
        cost = self._settler.ledger.charge(job, job_task.execution, done)
        if done is not None:
            await self._settler.settle(job, done, cost)
        elif reason is Interruption.CANCELLED:
            await self._settler.settle_cancelled(job, cost, has_begun=job_task.has_begun)
        elif reason is Interruption.DRAINED:
            await self._settler.settle_returned(job, cost, "drained", "the worker was stopped")
        elif reason is Interruption.YIELDED:
            await self._settler.settle_returned(job, cost, "yielded", "a more urgent job needed its slot")
        elif reason is Interruption.BROKEN:
            await self._settler.settle_broken(job, cost, has_begun=job_task.has_begun)
        else:
            self._settler.settle_lost()
        self._settler.traces.forget(job)

    async def _execute(self, job_task: JobTask) -> Executed:
        job = job_task.job

        def on_lost() -> None:
            job_task.interruption = Interruption.LOST

        def on_first() -> None:
            job_task.has_output = True

        def on_begin(request: Request) -> None:
            job_task.has_begun = True
            self._settler.traces.begin(job, request)
            self._begun.note(job.job_id)
            job_task.execution = execution = self._settler.ledger.engine.begin()
            place.callback(execution.end)

        left_s = self._executor.clock.seconds_until(job.deadline_ms)
        if not await self._isolation.enter_within(job.crash_count, left_s):
            return expired_in_queue()
        with contextlib.ExitStack() as place:  # given up once: when the engine has ended, or however the block does
            place.callback(self._isolation.leave)
            stream = Chunks(self._chunks, job, on_first, on_lost)
            done = await self._executor.execute(job, self._traffic.for_job(job), stream, on_begin, place.close)
        if done.verdict is Verdict.REQUEUE:
            self._begun.note(job.job_id, has_begun=False)
        return done
