"""Finding jobs at several Redis at once, the latest first over all: a cursor names the place at each."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field

import msgspec

from bitladder.errors import QueueUnreachableError, RequestError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.cursor import MAX_CHARS, read_cursor
from bitladder.queue.json_views.finding.find_jobs import JobPage
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.finding.merge import Merge
from bitladder.queue.json_views.finding.sources import plan_listing
from bitladder.queue.json_views.finding.walk import Step

# By the Redis' name: the cursor there; None: from the start. One that is not named is at its end, and only counted.
_Places = dict[str, str | None]
_END = ""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Places).decode


class SeveralPages(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the jobs of several Redis, by the Redis' name."""

    pages: Mapping[str, JobPage]
    next_cursor: str | None
    unreachable: Mapping[str, str]  # why, of those that are not in it


async def find_at_each(
    queues: Mapping[str, JobQueue], selection: JobFilter, after: str | None, *, limit: int
) -> SeveralPages:
    """Return up to so many jobs behind a cursor. One Redis that does not answer leaves the others' jobs as they are.

    Raises:
        RequestError: the cursor is none, or that of another filter or of other Redis.
        QueueUnreachableError: none of them answers.

    """
    places = dict.fromkeys(queues) if after is None else _read_places(after, queues, selection)
    lost: dict[str, QueueUnreachableError] = {}
    while True:
        left = {name: places.get(name, _END) for name in queues if name not in lost}
        if not left:
            raise next(iter(lost.values()))
        readers = {name: _Reader(queues[name], selection, place) for name, place in left.items()}
        try:
            is_more = await _walk(readers, selection, limit)
        except _LostError as error:
            lost[error.name] = error.reason
            continue
        pages = {name: reader.page() for name, reader in readers.items()}
        going_on: _Places = {name: page.next_cursor for name, page in pages.items() if page.next_cursor}
        # What is lost goes on from where it was, if the others do.
        going_on |= {name: places[name] for name in lost if name in places}
        cursor = base64.urlsafe_b64encode(_encode(going_on)).decode().rstrip("=") if is_more else None
        return SeveralPages(
            pages=pages, next_cursor=cursor, unreachable={name: str(error) for name, error in lost.items()}
        )


class _LostError(Exception):
    """One Redis did not answer."""

    def __init__(self, name: str, reason: QueueUnreachableError) -> None:
        super().__init__(name)
        self.name, self.reason = name, reason


@dataclass
class _Reader:
    """Goes through the jobs of one Redis."""

    queue: JobQueue
    selection: JobFilter
    after: str | None
    jobs: list[FoundJob] = field(default_factory=list)
    step: Step | None = None  # the next one; a cursor begins before it

    async def start(self) -> None:
        cursor = read_cursor(self.after, self.selection) if self.after else None
        self.plan = await plan_listing(self.queue, self.selection)
        plan = msgspec.structs.replace(self.plan, sources=()) if self.after == _END else self.plan
        self.merge = Merge(self.queue, plan, cursor)
        self._steps: AsyncIterator[Step] = self.merge.steps()
        await self.go_on()

    async def go_on(self) -> None:
        self.step = await anext(self._steps, None)

    @property
    def is_spent(self) -> bool:
        """Whether so many records were looked at that what follows is for another page."""
        return self.step is None and self.merge.is_more

    def page(self) -> JobPage:
        next_cursor = self.merge.cursor(self.selection) if self.merge.is_more else None
        return JobPage(jobs=self.jobs, looked_at=self.merge.looked_at, next_cursor=next_cursor, plan=self.plan)


async def _walk(readers: Mapping[str, _Reader], selection: JobFilter, limit: int) -> bool:
    """Take jobs, the latest first over all; return whether there are more."""
    started = (_asked(name, reader.start()) for name, reader in readers.items())
    for failure in filter(None, await asyncio.gather(*started, return_exceptions=True)):
        raise failure
    count = 0
    while not any(reader.is_spent for reader in readers.values()):
        name = max(
            (name for name, reader in readers.items() if reader.step),
            key=lambda name: readers[name].step.at_ms,  # type: ignore[union-attr]
            default=None,
        )
        if name is None:
            return False
        reader = readers[name]
        job = reader.step and reader.step.job
        if job and selection.matches(job, reader.plan.sizes.now_ms):
            if count == limit:
                return True
            reader.jobs.append(job)
            count += 1
        await _asked(name, reader.go_on())
    return True


async def _asked(name: str, asking: Awaitable[None]) -> None:
    try:
        await asking
    except QueueUnreachableError as error:
        raise _LostError(name, error) from error


def _read_places(text: str, queues: Mapping[str, JobQueue], selection: JobFilter) -> _Places:
    """Read the places of all Redis; each one's is checked here, before any is asked.

    Raises:
        RequestError: it is none, or that of another filter or of other Redis.

    """
    expected = f"after must be the next_cursor of an earlier page, got {text[:40]!r}"
    if len(text) > MAX_CHARS * len(queues) * 2:
        raise RequestError(expected, param="after")
    try:
        places = _decode(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError):
        raise RequestError(expected, param="after") from None
    if not places or not places.keys() <= queues.keys():
        raise RequestError("after must be the next_cursor of a page of the same Redis", param="after")
    for place in places.values():
        if place is not None:
            read_cursor(place, selection)
    return places
