"""The runner of batches, a part of every intake: it takes leases on batches, and runs those that it holds."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.queue.calls.batch_record import LeasedBatch
from dispatcher.batch.batch_records import Batches, LeaseLostError
from dispatcher.batch.batch_run import BatchRun, BatchTools
from dispatcher.batch.batch_state import Status
from dispatcher.batch.file_service import Files
from dispatcher.metrics.intake_metrics import BatchMetrics
from dispatcher.state import IntakeState

log = structlog.get_logger()
# The batches of a runner that was killed are taken by another one after a lease and a renewal at the most.
LEASE_S, _RENEW_S = 6.0, 1.5
# Batches that one intake runs at once; the others wait until it, or another one, has room.
_MAX_HELD = 32


@dataclass(slots=True)
class _Held:
    """A batch that is run here."""

    fence: int
    task: asyncio.Task[None]
    until_s: float  # when the lease ends, in the loop's time
    run: BatchRun | None = None  # None: its record is being read


class BatchRunner:
    """Runs batches in one intake."""

    def __init__(self, state: IntakeState, files: Files) -> None:
        self._state, self._batches = state, Batches(state.queue)
        self._held: dict[str, _Held] = {}
        self._wake = asyncio.Event()
        metrics = BatchMetrics(state.metrics.registry, lambda: len(self._held))
        self._tools = BatchTools(state, files, self._batches, metrics)

    def hurry(self) -> None:
        """Look for batches now: one was created or cancelled."""
        self._wake.set()

    async def run(self) -> None:
        """Take and run batches, until cancelled; then let others have them at once."""
        try:
            while True:
                with contextlib.suppress(QueueUnreachableError):  # the leases go on until they end
                    await self._lease()
                self._give_up_late()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _RENEW_S)
                self._wake.clear()
        finally:
            await self._release()

    async def _lease(self) -> None:
        start_s = asyncio.get_running_loop().time()
        free = 0 if self._state.closing.is_draining else _MAX_HELD - len(self._held)
        fences = {batch_id: held.fence for batch_id, held in self._held.items()}
        now_ms, leased = await self._batches.lease(int(LEASE_S * 1000), max(0, free), fences)
        for batch in leased:
            if held := self._held.get(batch.id):
                self._renewed(held, batch, start_s + LEASE_S)
            elif batch.id not in fences:
                task = asyncio.create_task(self._run(batch, now_ms), name=batch.id)
                self._held[batch.id] = _Held(batch.fence, task, start_s + LEASE_S)

    def _renewed(self, held: _Held, batch: LeasedBatch, until_s: float) -> None:
        if batch.fence != held.fence:
            held.task.cancel()
            return
        held.until_s = until_s
        if held.run:
            held.run.leased_until_s = until_s
        if batch.status == Status.CANCELLING and held.run:
            held.run.cancel()

    def _give_up_late(self) -> None:
        """Stop what was not renewed in time: another runner may have it."""
        now_s = asyncio.get_running_loop().time()
        for held in self._held.values():
            if held.until_s < now_s:
                held.task.cancel()

    async def _run(self, batch: LeasedBatch, now_ms: int) -> None:
        try:
            record = await self._batches.read(batch.id)
            left_s = (record.expires_ms - now_ms) / 1000
            run = BatchRun(self._tools, record, batch.fence, asyncio.get_running_loop().time() + left_s)
            held = self._held[batch.id]
            held.run, run.leased_until_s = run, held.until_s
            status = await run.run()
            self._tools.metrics.ended(status.value).inc()
        except LeaseLostError:
            log.warning("batch is run by another intake", batch_id=batch.id)
        except BitladderError as error:  # another try comes once the lease has ended
            log.warning("batch interrupted", batch_id=batch.id, error=str(error))
        except Exception as error:
            log.exception("batch broke, it is tried again", batch_id=batch.id, error=repr(error))
        finally:
            self._held.pop(batch.id, None)

    async def _release(self) -> None:
        fences = {batch_id: held.fence for batch_id, held in self._held.items()}
        tasks = [held.task for held in self._held.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if fences:
            with contextlib.suppress(QueueUnreachableError):
                await self._batches.lease(0, 0, fences)
