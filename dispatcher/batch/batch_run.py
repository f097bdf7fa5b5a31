"""One batch, from the check of its file to its output files, under the lease of this process.

What is written to the store is whole before the record says that it is there, and only who has the lease writes the
record. So a runner can be killed at any moment: the next one reads the record and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from bitladder.errors import NotFoundError
from bitladder.routing.batch_input.scan_batch import BatchError, BatchScan, Rules, Scanned
from bitladder.settings.sections import Settings
from dispatcher.batch.batch_lines import BatchLines
from dispatcher.batch.batch_output import BatchOutput
from dispatcher.batch.batch_records import Batches, LeaseLostError
from dispatcher.batch.batch_results import CANCELLED, EXPIRED, Result, add_tokens
from dispatcher.batch.batch_state import BatchRecord, Progress, Status
from dispatcher.batch.file_service import Files, new_file_id
from dispatcher.batch.object_store import ObjectMissingError, StoreError
from dispatcher.metrics.intake_metrics import BatchMetrics
from dispatcher.state import IntakeState

log = structlog.get_logger()
# Results are written after a share of the time that the batch has run: so there are some hundred parts, however long
# that is.
_MIN_PART_S, _MAX_PART_S, _PART_SHARE = 1.0, 30.0, 0.01
# Once a batch ends early: so long the outcomes of jobs that run are awaited.
_ABORT_S = 20.0
# A job whose result is written is kept so long: a runner that does not know yet that it has lost its lease may submit
# the line once more, and finds the job.
_FORGOTTEN_MS = 60_000
_SCANNED_BYTES = 32 * 1024
_ENDS = {CANCELLED: Status.CANCELLED, EXPIRED: Status.EXPIRED, "": Status.COMPLETED}


@dataclass(frozen=True, slots=True)
class BatchTools:
    """What the batches of one intake share."""

    state: IntakeState
    files: Files
    batches: Batches
    metrics: BatchMetrics


class BatchRun:
    """A batch that this process holds."""

    def __init__(self, tools: BatchTools, record: BatchRecord, fence: int, end_s: float) -> None:
        """Run the batch under this fence; `end_s`: when its window closes, in the loop's time."""
        self.status = record.status
        self.leased_until_s = math.inf  # in the loop's time; who renews the lease says it
        self._tools, self._record, self._fence, self._end_s = tools, record, fence, end_s
        self._progress = record.progress
        self._done = bytearray(record.done.ljust((record.progress.total + 7) // 8, b"\0"))
        self._output = BatchOutput(tools.files, record)
        self._is_cancelled = record.status is Status.CANCELLING
        self._lines: BatchLines | None = None

    def cancel(self) -> None:
        """Note that the batch was cancelled."""
        self._is_cancelled = True
        if self._lines:
            self._lines.hurry()

    async def run(self) -> Status:
        """Bring the batch to its end, and return which that was.

        Raises:
            LeaseLostError: another runner has it by now.
            QueueUnreachableError, StoreError: Redis or the store does not answer; another try goes on from there.

        """
        if self._progress.total and not await self._output.has_index():  # Redis was restored to before the batch's end
            self._progress = Progress(times=self._progress.times)
        if not self._progress.total and not self._progress.end:
            await self._validate()
        if self.status.is_end:
            return self.status
        if self._progress.total and not self._progress.end:
            try:
                await self._run_lines()
            except ObjectMissingError:
                missing = await _input_missing(self._tools, self._record)
                self._progress = msgspec.structs.replace(self._progress, errors=[missing])
                await self._decide(Status.FAILED)
        await self._finalize()
        done, failed = self._progress.completed, self._progress.failed
        log.info("batch ended", batch_id=self._record.id, status=self.status, completed=done, failed=failed)
        return self.status

    @property
    def _early_end(self) -> str:
        """Why no more lines are run; '': they are."""
        if self._is_cancelled:
            return CANCELLED
        return EXPIRED if asyncio.get_running_loop().time() >= self._end_s else ""

    def _may_go_on(self) -> bool:
        """Return whether more lines may be submitted.

        Raises:
            LeaseLostError: the lease was not renewed in time: another runner may have them by now.

        """
        if self._early_end:
            return False
        if asyncio.get_running_loop().time() >= self.leased_until_s:
            raise LeaseLostError(self._record.id)
        return True

    async def _validate(self) -> None:
        scanned, errors = None, []
        try:
            if scanned := await _scan(self._tools, self._record, lambda: self._early_end):
                errors = scanned.errors
        except ObjectMissingError:
            errors = [await _input_missing(self._tools, self._record)]
        if errors:
            progress = msgspec.structs.replace(self._progress, errors=errors)
            await self._write(Status.FAILED, progress.at(Status.FAILED, _now_ms()))
        elif scanned:
            await self._output.write_index(scanned.index)
            self._done = bytearray((scanned.lines + 7) // 8)
            progress = msgspec.structs.replace(self._progress, total=scanned.lines, model=scanned.models[0])
            await self._write(Status.IN_PROGRESS, progress.at(Status.IN_PROGRESS, _now_ms()))

    async def _run_lines(self) -> None:
        reader = await self._output.reader()
        self._lines = lines = BatchLines(
            self._tools.state, self._record, reader, self._end_s, is_taken_over=self._fence > 1
        )
        positions = [position for position in range(len(reader)) if not self._is_done(position)]
        submitting = asyncio.create_task(lines.submit(positions, self._may_go_on))
        submitting.add_done_callback(lambda _: lines.changed.set())
        try:
            await self._gather(lines, submitting)
            if reason := self._early_end:
                await self._stop(lines, submitting, reason)
        except ObjectMissingError:
            await _input_missing(self._tools, self._record)  # else the jobs go on
            await self._write_part(lines.take_results())
            await lines.stop_jobs()
            raise
        finally:
            submitting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await submitting
            lines.close()
            self._lines = None

    async def _gather(self, lines: BatchLines, submitting: asyncio.Task[None]) -> None:
        """Write results as they come, until all lines have one, or the batch ends early."""
        loop = asyncio.get_running_loop()
        start_s = written_s = loop.time()
        while not self._early_end and not (submitting.done() and lines.is_idle):
            pause_s = min(_MAX_PART_S, max(_MIN_PART_S, _PART_SHARE * (loop.time() - start_s)))
            wait_s = min(written_s + pause_s, self._end_s) - loop.time()
            lines.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lines.changed.wait(), max(0.0, wait_s))
            if submitting.done():
                submitting.result()  # its error is this one's
            await lines.read_large()
            if lines.is_full or loop.time() >= written_s + pause_s:
                await self._write_part(lines.take_results())
                written_s = loop.time()
        await self._write_part(lines.take_results())
        if submitting.done():
            submitting.result()

    async def _stop(self, lines: BatchLines, submitting: asyncio.Task[None], reason: str) -> None:
        """Cancel what waits or runs, and take the results that come yet."""
        lines.unrun = reason
        lines.hurry()
        await submitting  # it submits nothing more, and has all that a runner before has submitted
        await lines.stop_jobs()
        end_s = asyncio.get_running_loop().time() + _ABORT_S
        while not lines.is_idle and (left_s := end_s - asyncio.get_running_loop().time()) > 0:
            lines.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lines.changed.wait(), left_s)
            await lines.read_large()
        await self._write_part(lines.take_results())

    async def _write_part(self, results: Sequence[Result]) -> None:
        """Write results to the store, and then that they are there."""
        if not results:
            return
        parts = await self._output.write_part(self._progress.parts, self._fence, results)
        for result in results:
            self._done[result.line.position // 8] |= 1 << result.line.position % 8
        answered = sum(result.is_answer for result in results)
        progress = msgspec.structs.replace(
            self._progress,
            completed=self._progress.completed + answered,
            failed=self._progress.failed + len(results) - answered,
            expired=self._progress.expired + sum(result.is_expired for result in results),
            tokens=add_tokens(self._progress.tokens, results),
            parts=parts,
        )
        await self._write(Status.IN_PROGRESS, progress, bytes(self._done))
        self._tools.metrics.lines("completed").inc(answered)
        self._tools.metrics.lines("failed").inc(len(results) - answered)
        await self._output.forget_jobs(results, _FORGOTTEN_MS)

    async def _finalize(self) -> None:
        """Write the files, and then the end. A runner that takes over here writes the same files once more."""
        if not self._progress.end:
            await self._decide(_ENDS[self._early_end_of_lines()])
            if self._is_cancelled:
                await self._decide(Status.CANCELLED)
        end = Status(self._progress.end)
        unrun = {Status.CANCELLED: CANCELLED, Status.EXPIRED: EXPIRED}.get(end, "")
        left = [position for position in range(self._progress.total) if unrun and not self._is_done(position)]
        progress = await self._output.write_files(self._progress, left, unrun)
        progress = msgspec.structs.replace(progress, failed=progress.failed + len(left))
        await self._write(end, progress.at(end, _now_ms()))
        self._tools.metrics.lines(end.value).inc(len(left))
        await self._output.delete()

    async def _decide(self, end: Status) -> None:
        """Note how the batch will end, and the ids of its files."""
        status = Status.CANCELLING if end is Status.CANCELLED else Status.FINALIZING
        progress = msgspec.structs.replace(
            self._progress, end=end.value, output_file_id=new_file_id(), error_file_id=new_file_id()
        )
        await self._write(status, progress.at(status, _now_ms()))

    def _early_end_of_lines(self) -> str:
        """Return why lines were not run, in the queue or in their file; '': all were."""
        if self._progress.completed + self._progress.failed == self._progress.total > 0:
            return EXPIRED if self._progress.expired else ""
        if not self._early_end:
            raise RuntimeError("a batch must not end as long as lines are left")
        return self._early_end

    async def _write(self, status: Status, progress: Progress, done: bytes = b"") -> None:
        self.status = await self._tools.batches.write(self._record, self._fence, status, progress, done)
        self._progress = progress
        if self.status is Status.CANCELLING:
            self._is_cancelled = True

    def _is_done(self, position: int) -> bool:
        return bool(self._done[position // 8] >> position % 8 & 1)


async def _scan(tools: BatchTools, record: BatchRecord, ends_early: Callable[[], str]) -> Scanned | None:
    """Check the whole file; None: the batch ends early."""
    scan = BatchScan(_rules(tools.state.settings, record))
    async with contextlib.aclosing(tools.files.store.stream(record.spec.input_key)) as parts:
        async for part in parts:
            for start in range(0, len(part), _SCANNED_BYTES):
                if ends_early():
                    return None
                scan.feed(part[start : start + _SCANNED_BYTES])
                await asyncio.sleep(0)  # others get their turn
    return scan.end()


def _rules(settings: Settings, record: BatchRecord) -> Rules:
    return Rules(
        endpoint=record.spec.endpoint,
        is_model=lambda name: name in settings.choices,
        max_lines=settings.files.max_lines,
        max_line_bytes=settings.intake.max_body_bytes,
    )


async def _input_missing(tools: BatchTools, record: BatchRecord) -> BatchError:
    """Return the error of a batch whose input was deleted, or has expired.

    Raises:
        StoreError: it was not, but the store lacks it, as a folder that is not mounted does.

    """
    file_id = record.spec.input_file_id
    with contextlib.suppress(NotFoundError):
        await tools.files.get(record.tenant, file_id)
        raise StoreError(f"the store lacks the input of {record.id}, {file_id}, or its index")
    return BatchError(code="input_file_missing", message=f"the input file {file_id} is no longer there", param=None)


def _now_ms() -> int:
    return int(time.time() * 1000)
