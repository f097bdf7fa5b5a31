"""All walks of a listing at once, merged by time."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import msgspec

from bitladder.ids import id_bytes
from bitladder.queue.calls.find import OMITTED, Entry, read_slices, slices_call
from bitladder.queue.calls.read import records_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.cursor import Cursor, ListMark, Mark, digest_of, write_cursor
from bitladder.queue.json_views.finding.found_job import id_of_member
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.finding.sources import TOP, Plan, Source
from bitladder.queue.json_views.finding.walk import ListWalk, RegistryWalk, Step, Walk
from bitladder.queue.sending.budget import MAX_BYTES

# Records that are looked at for one page, and ids without their records; with the last slice some more.
_MAX_RECORDS, _MAX_IDS = 10_000, 100_000
# Slices that one script call is asked for, and entries that are asked of them together: it stops at some hundreds.
_MAX_SLICES, _MAX_TOGETHER = 64, 64


class Merge:
    """Goes through the walks of a plan, from a cursor on."""

    def __init__(self, queue: JobQueue, plan: Plan, cursor: Cursor | None) -> None:
        self._queue = queue
        self._heap: list[tuple[tuple[int, str], Walk]] = []
        self._begun_ms = cursor.begun_ms if cursor else plan.sizes.now_ms
        self._walks = [self._walk(source, cursor) for source in plan.sources]
        self._at_ms = cursor.at_ms if cursor else TOP
        self._mark = cursor.mark if cursor else Mark(self._begun_ms)
        self._lists = dict(cursor.lists) if cursor else dict(_first_marks(plan))
        self._ids = 0
        self.looked_at = 0

    def _walk(self, source: Source, cursor: Cursor | None) -> Walk:
        if source.kind == "list":
            return ListWalk(source, cursor, self._queue.signer)
        return RegistryWalk(source, cursor, self._begun_ms, self._queue.signer)

    async def steps(self) -> AsyncIterator[Step]:
        """Yield one step after the other, the latest first, until the end or so many records were looked at.

        The one that was yielded last is passed over when the next one is asked for: a cursor begins behind that.
        """
        await self._fill(self._walks)
        while self._heap:
            walk = self._heap[0][1]
            yield walk.steps[0]
            self._pass_over(walk)
            if walk.needs and self._is_spent:
                return
            heapq.heappop(self._heap)
            await self._fill([walk])

    @property
    def is_more(self) -> bool:
        """Whether anything is left to look at."""
        return bool(self._heap)

    def cursor(self, selection: JobFilter) -> str:
        """Return where the next page goes on: behind the steps that were passed over."""
        return write_cursor(selection, begun_ms=self._begun_ms, at_ms=self._at_ms, mark=self._mark, lists=self._lists)

    @property
    def _is_spent(self) -> bool:
        return self.looked_at >= _MAX_RECORDS or self._ids >= _MAX_IDS

    def _pass_over(self, walk: Walk) -> None:
        step, source = walk.steps.popleft(), walk.source
        if source.kind == "list":
            self._lists[digest_of(id_bytes(source.key))] = ListMark(step.number, digest_of(step.member))
            self._at_ms = min(self._at_ms, step.at_ms)
        else:
            self._mark = Mark(step.at_ms, source.name, step.member, step.is_by_member)

    async def _fill(self, walks: Iterable[Walk]) -> None:
        """Read on in those walks that need it, and put all of them where their next step belongs."""
        walks = list(walks)
        while needing := [walk for walk in walks if walk.needs]:
            await self._read(needing[:_MAX_SLICES], max(1, _MAX_TOGETHER // len(needing)) if len(needing) > 1 else 1)
        for walk in walks:
            if walk.steps:
                heapq.heappush(self._heap, (walk.rank, walk))

    async def _read(self, walks: Sequence[Walk], limit: int) -> None:
        answer = read_slices(await self._queue.run(slices_call([walk.slice(limit) for walk in walks])))
        for walk, read in zip(walks, answer, strict=False):
            self._ids += len(read.entries)
            self.looked_at += sum(entry.values is not None for entry in read.entries)
            is_running = walk.source.kind == "running"
            entries = [await self._completed(entry, is_running=is_running) for entry in read.entries]
            walk.take(msgspec.structs.replace(read, entries=entries))

    async def _completed(self, entry: Entry, *, is_running: bool) -> Entry:
        """Return an entry with its outcome, where that was too long for a slice."""
        if entry.values is None or entry.values["outcome"] != OMITTED:
            return entry
        job_id = id_of_member(entry.member, is_running=is_running)
        (row,) = await self._queue.run(records_call([job_id], ("outcome",), MAX_BYTES))
        outcome = b"" if isinstance(row, Exception) else row[0] or b""
        return msgspec.structs.replace(entry, values={**entry.values, "outcome": outcome})


def _first_marks(plan: Plan) -> Iterator[tuple[bytes, ListMark]]:
    for source in plan.sources:
        if source.kind == "list":
            yield digest_of(id_bytes(source.key)), ListMark(plan.sizes.lists[source.key].last_number)
