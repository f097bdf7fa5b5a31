"""Finding jobs by a filter, the latest first, a page at a time. READ THIS FIRST.

What waits, runs and has ended is merged by when each job came into its state. Nothing is indexed for it: jobs lie in
the lists and registries of their queues (sources.py), which are read in slices (walk.py, merge.py) until a page is
full, or so many records were looked at. A cursor (cursor.py) says where the next page goes on: a job that stays in its
state is on one page and on no other, whatever becomes of those around it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.cursor import read_cursor
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.finding.merge import Merge
from bitladder.queue.json_views.finding.sources import Plan, plan_listing


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the jobs that a filter takes."""

    jobs: Sequence[FoundJob]
    looked_at: int  # records
    next_cursor: str | None  # None: there are no more
    plan: Plan  # where was looked


async def find_jobs(
    queue: JobQueue, selection: JobFilter, after: str | None = None, *, limit: int = 500
) -> AsyncIterator[JobPage]:
    """Yield pages until there are no more jobs; one may be empty, and others follow nevertheless.

    Raises:
        RequestError: the cursor is none, or that of another filter.
        QueueUnreachableError: Redis is unreachable.

    """
    while True:
        page = await find_page(queue, selection, after, limit=limit)
        yield page
        if page.next_cursor is None:
            return
        after = page.next_cursor


async def find_page(queue: JobQueue, selection: JobFilter, after: str | None = None, *, limit: int) -> JobPage:
    """Return up to so many jobs behind a cursor; fewer where many records had to be looked at."""
    cursor = None if after is None else read_cursor(after, selection)
    plan = await plan_listing(queue, selection)
    merge = Merge(queue, plan, cursor)
    jobs: list[FoundJob] = []
    async for step in merge.steps():
        if step.job and selection.matches(step.job, plan.sizes.now_ms):
            if len(jobs) == limit:
                break
            jobs.append(step.job)
    next_cursor = merge.cursor(selection) if merge.is_more else None
    jobs.sort(key=lambda job: -job.since_ms)  # registries have seconds, and records milliseconds
    return JobPage(jobs=jobs, looked_at=merge.looked_at, next_cursor=next_cursor, plan=plan)
