"""The lines of one batch that is in progress: a bounded number of them are jobs at any moment, in the index' order.

A line's job has an id that follows from batch and line. So a runner that takes the batch over submits again what it
does not know of, and nothing runs twice: what was submitted before is the same job.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

import msgspec

from bitladder.contract import Outcome, Submission
from bitladder.errors import BitladderError, QueueUnreachableError, RefusedError
from bitladder.queue.calls.end import Doubtful
from bitladder.queue.job_record import LOST, Ended, Item
from bitladder.queue_name import Lane
from bitladder.routing.accept import Accepted, Incoming
from bitladder.routing.batch_input.line_forms import BatchLine
from bitladder.routing.envelope import LatencyBudget
from bitladder.routing.max_cost import BudgetError
from dispatcher.batch.batch_results import Line, Result, batch_service_tier, outcome_result, refused_result
from dispatcher.batch.batch_state import BatchRecord
from dispatcher.batch.line_reader import LineReader
from dispatcher.state import IntakeState
from dispatcher.submission import route_incoming, submit_admitted

# Lines that are read and submitted together, and after how many of them others get a turn in the process.
_BUNDLE, _YIELD_EVERY = 64, 4
# So many results, or bytes of them, are worth to be written at once.
_PART_LINES, _PART_BYTES = 1000, 1024 * 1024
# Bytes of lines that are jobs, and of results that are not written yet: what a batch may keep in memory and in Redis.
_MAX_BYTES = 32 * 1024 * 1024
# A job of which nothing was heard for so long is looked up: its message may have been lost.
_SILENT_S = 10.0
# Between two tries of a line that the queue has no room for now.
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.05, 2.0
# The same where none is expected for longer than a minute, as with a budget that is used up for the day.
_LONG_S, _LONG_PAUSE_S = 60.0, 30.0
_LOOK_BYTES = 1024 * 1024
_NO_BUDGET = LatencyBudget()  # the deadline is the batch's: no line is refused because others wait before it
_WAITS = (RefusedError, QueueUnreachableError, BudgetError)


class _Pending:
    """One line that is a job: it hears of its outcome."""

    def __init__(self, lines: BatchLines, line: Line, batch_line: BatchLine) -> None:
        self.line, self.size = line, len(batch_line.body)
        self.service_tier = batch_service_tier(batch_line.body)
        self.job: Submission | None = None  # None: it is submitted
        self.is_stored = False
        self._lines, self._loop = lines, asyncio.get_running_loop()
        self._looked_s = self._loop.time()

    def put(self, item: Item) -> None:
        if isinstance(item, Outcome):
            self._lines.ended(self, item)
        elif isinstance(item, Ended):
            self._lines.ended_at_length(self)

    def is_silent(self, since_s: float) -> bool:
        """See Listener. Whoever asks looks the job up: then the time begins anew."""
        is_due = self.is_stored and (self._looked_s + _SILENT_S <= since_s or since_s > self._loop.time() - 0.1)
        if is_due:
            self._looked_s = self._loop.time()
        return is_due


class BatchLines:
    """The lines of one batch, while this process runs it."""

    def __init__(
        self, state: IntakeState, record: BatchRecord, reader: LineReader, end_s: float, *, is_taken_over: bool
    ) -> None:
        """Run lines until `end_s` of the loop's time; `is_taken_over`: another runner may have submitted some."""
        self.changed = asyncio.Event()  # there are results to write, or outcomes to read
        self.results: list[Result] = []  # that are not written yet
        self.result_bytes = 0
        self.unrun = ""  # once the batch ends early: what is said of lines that were not run
        self._state, self._record, self._reader = state, record, reader
        self._end_s, self._is_taken_over = end_s, is_taken_over
        self._max_jobs = max_jobs = _max_jobs(state, record)
        self._pending: dict[str, _Pending] = {}
        self._large: list[_Pending] = []
        self._pending_bytes, self._bundle = 0, min(_BUNDLE, max_jobs)
        self._room = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether no line is a job now."""
        return not self._pending

    @property
    def is_full(self) -> bool:
        """Whether the results should be written now."""
        return len(self.results) >= _PART_LINES or self.result_bytes >= _PART_BYTES

    def hurry(self) -> None:
        """Let everything that waits look whether it should go on."""
        self.changed.set()
        self._room.set()

    def take_results(self) -> list[Result]:
        """Return the results that are not written yet; the caller writes them."""
        taken, self.results, self.result_bytes = self.results, [], 0
        self._room.set()
        return taken

    async def submit(self, positions: Sequence[int], may_go_on: Callable[[], bool]) -> None:
        """Submit the lines at these places of the index, as room comes; return once all are submitted.

        What a runner before has submitted is waited for, even where nothing more is to be submitted.

        Raises:
            StoreError: the input cannot be read.

        """
        for start in range(0, len(positions), self._bundle):
            bundle = positions[start : start + self._bundle]
            if self._is_taken_over:
                bundle = await self._adopt(bundle)
            elif not may_go_on():
                return
            await self._wait_for_room(may_go_on)
            if bundle and may_go_on():
                await self._submit_all(await self._routed_all(bundle), may_go_on)

    async def read_large(self) -> None:
        """Read the outcomes that had no room in a message."""
        while self._large:
            pending = self._large.pop()
            if pending.line.job_id not in self._pending:  # it was heard of twice
                continue
            (item,) = await self._state.queue.look([pending.line.job_id])
            if isinstance(item, Outcome):
                self.ended(pending, item)

    async def stop_jobs(self) -> None:
        """Cancel the jobs that have not ended: those that wait end at once, those that run are aborted."""
        jobs = [
            Doubtful(job_id=job_id, queue=pending.job.queue if pending.job else "", tenant=self._record.tenant)
            for job_id, pending in self._pending.items()
        ]
        for start in range(0, len(jobs), _BUNDLE):
            bundle = jobs[start : start + _BUNDLE]
            await self._state.queue.withdraw(bundle)
            await self._look_up([pending for job in bundle if (pending := self._pending.get(job.job_id))])

    def close(self) -> None:
        """Hear of no job any more."""
        for pending in self._pending.values():
            self._state.inbox.detach(pending.line.job_id, pending)
        self._pending.clear()

    def ended(self, pending: _Pending, outcome: Outcome) -> None:
        """Take the outcome of a line's job, the first one that is heard."""
        if self._leave(pending):
            self._add(outcome_result(pending.line, outcome, self.unrun, pending.service_tier))

    def ended_at_length(self, pending: _Pending) -> None:
        """Note that a job has ended, whose outcome is to be read."""
        self._large.append(pending)
        self.changed.set()

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self.result_bytes += len(result.data)
        if self.is_full or self.is_idle:
            self.changed.set()

    def _leave(self, pending: _Pending) -> bool:
        """Return whether the line was a job until now."""
        if self._pending.pop(pending.line.job_id, None) is None:
            return False
        self._state.inbox.detach(pending.line.job_id, pending)
        self._pending_bytes -= pending.size
        self._room.set()
        return True

    async def _wait_for_room(self, may_go_on: Callable[[], bool]) -> None:
        while may_go_on() and (
            len(self._pending) + self._bundle > self._max_jobs or self._pending_bytes + self.result_bytes > _MAX_BYTES
        ):
            self._room.clear()
            await self._room.wait()

    async def _adopt(self, positions: Sequence[int]) -> list[int]:
        """Hear of those lines that are jobs already; return the places of the others."""
        ids = [f"{self._record.id}-{row.line}" for row in map(self._reader.row, positions)]
        items = await self._state.queue.look(ids, max_bytes=1)
        known = {position: None for position, item in zip(positions, items, strict=True) if item is not LOST}
        if known:
            adopted = [self._add_pending(line, batch_line) for line, batch_line in await self._read(list(known))]
            await self._look_up(adopted)
        return [position for position in positions if position not in known]

    async def _look_up(self, looked_up: Sequence[_Pending]) -> None:
        """Hear of these jobs from now on, and take what is known of them."""
        ids = [pending.line.job_id for pending in looked_up]
        items = await self._state.queue.look(ids, channel=self._state.inbox.channel, max_bytes=_LOOK_BYTES)
        for pending, item in zip(looked_up, items, strict=True):
            pending.is_stored = True
            if item is not None:
                pending.put(item)

    async def _read(self, positions: Sequence[int]) -> list[tuple[Line, BatchLine]]:
        return [
            (
                Line(batch_id=self._record.id, number=row.line, position=position, custom_id=batch_line.custom_id),
                batch_line,
            )
            for position, row, batch_line in await self._reader.read(positions)
        ]

    async def _routed_all(self, positions: Sequence[int]) -> list[_Pending]:
        """Return lines as jobs; what is refused has its result."""
        routed = []
        for count, (line, batch_line) in enumerate(await self._read(positions)):
            try:
                accepted = _accept(self._state, self._record, line, batch_line)
            except BitladderError as error:
                self._add(refused_result(line, error))
            else:
                pending = self._add_pending(line, batch_line)
                pending.job = accepted.submission
                routed.append(pending)
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return routed

    def _add_pending(self, line: Line, batch_line: BatchLine) -> _Pending:
        pending = self._pending[line.job_id] = _Pending(self, line, batch_line)
        self._pending_bytes += pending.size
        self._state.inbox.attach(line.job_id, pending)
        return pending

    async def _submit_all(self, fresh: Sequence[_Pending], may_go_on: Callable[[], bool]) -> None:
        """Submit these, again and again as long as there is no room for them."""
        while fresh and may_go_on():
            pauses_s = await asyncio.gather(*map(self._submit_one, fresh))
            waiting = [(pending, pause_s) for pending, pause_s in zip(fresh, pauses_s, strict=True) if pause_s]
            fresh = [pending for pending, _ in waiting]
            if waiting:
                wait_s = min(pause_s for _, pause_s in waiting)
                await self._pause(min(wait_s, _LONG_PAUSE_S if wait_s > _LONG_S else _MAX_PAUSE_S))

    async def _pause(self, pause_s: float) -> None:
        """Wait so long, or until a job of this batch has ended: then there may be room."""
        self._room.clear()
        await asyncio.sleep(_MIN_PAUSE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), pause_s * random.uniform(0.5, 1))  # noqa: S311  (jitter)

    async def _submit_one(self, pending: _Pending) -> float:
        """Submit one line; return when to try again, 0: it is a job, or was refused."""
        left_ms = max(1, int((self._end_s - asyncio.get_running_loop().time()) * 1000))
        assert pending.job  # noqa: S101  (it was routed)
        job = msgspec.structs.replace(pending.job, deadline_ms=left_ms)
        try:
            await submit_admitted(self._state, job, _NO_BUDGET)
        except _WAITS as error:
            return max(_MIN_PAUSE_S, error.retry_after_s)
        except BitladderError as error:
            self._leave(pending)
            self._add(refused_result(pending.line, error))
        pending.is_stored, pending.job = True, None  # its prompt need not be here any more
        return 0.0


def _accept(state: IntakeState, record: BatchRecord, line: Line, batch_line: BatchLine) -> Accepted:
    """Route a line as a request of its owner's."""
    owner = record.spec.owner
    incoming = Incoming(
        endpoint=record.spec.endpoint,
        body=batch_line.body,
        headers={},
        job_id=line.job_id,
        request_id=line.job_id,
        lane=Lane.BATCH,
        tenant=owner.tenant,
        max_of_tenant=owner.max_queued,
        payer=owner.key if owner.pays else "",
        curves=state.budgets.curves,
        key_name=owner.key,
        weight=owner.weight,
        rules=owner.rules,
        has_worker=state.has_worker,
    )
    return route_incoming(state, incoming, reply=True)


def _max_jobs(state: IntakeState, record: BatchRecord) -> int:
    """Return how many lines may be jobs at once; of a tenant's quota, half is left for its other requests."""
    quota = record.spec.owner.max_queued or state.settings.queue.max_per_tenant
    limit = state.settings.batch.max_queued
    return min(limit, max(1, quota // 2)) if quota else limit
