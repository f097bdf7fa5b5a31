"""A page of jobs as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bitladder.contract import Outcome, State
from bitladder.ids import readable
from bitladder.queue.calls.read import records_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.find_jobs import JobPage, find_page
from bitladder.queue.json_views.finding.find_several import find_at_each
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.finding.tenant_counts import unended_jobs
from bitladder.queue.json_views.job import JobFailure
from bitladder.queue.json_views.kinds import Count, Duration, Timestamp
from bitladder.queue.sending.budget import MAX_BYTES
from bitladder.queue_name import DEFAULT_TENANT, Lane

MAX_JOBS, DEFAULT_JOBS = 500, 50
# Outcomes that one call reads.
_BUNDLE = 100

_Tier = Annotated[str, Meta(description="That serves or served it; of one that waits: its queue's.")]
_Floor = Annotated[str, Meta(description="The lowest tier that may serve it without being asked.")]
_Since = Annotated[Timestamp, Meta(description="When it came into this state: the list is in this order.")]
_Maybe = Annotated[Timestamp | None, Meta(description="null: not yet, or its record does not say.")]
_Age = Annotated[Duration, Meta(description="Seconds since then, by Redis' clock.")]
_Cost = Annotated[float | None, Meta(description="null: not known, or none yet.")]
_LookedAt = Annotated[Count | None, Meta(description="Records looked at for this page; null without ops:read.")]
_Counts = Annotated[dict[str, Count] | None, Meta(description="Jobs by state; `counted` says of which.")]
_Counted = Annotated[str | None, Meta(description="What `counts` counts, whatever else the page is filtered by.")]
_LeftOut = Annotated[
    Count, Meta(description="Tenants' lists of waiting jobs that were not looked at: there are too many for one list.")
]
_Unreachable = Annotated[
    dict[str, str] | UnsetType, Meta(description="Of several Redis those whose jobs are missing, and why.")
]


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a list: never its prompt or its answer."""

    id: str
    object: Literal["job"] = "job"
    state: State
    model: str
    tier: _Tier
    floor: _Floor
    lane: Lane
    tenant: str
    tags: Sequence[str]
    batch: str | None
    created_at: _Maybe
    started_at: _Maybe
    ended_at: _Maybe
    since: _Since
    age_s: _Age
    worker: str | None
    attempts: Count
    error: JobFailure | None
    cost: _Cost


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, the latest first."""

    object: Literal["list"] = "list"
    data: list[JobRow]
    has_more: bool
    next_cursor: str | None
    looked_at: _LookedAt
    counts: _Counts
    counted: _Counted
    left_out: _LeftOut
    unreachable: _Unreachable = UNSET


async def list_jobs(
    queue: JobQueue, selection: JobFilter, after: str | None, limit: int, *, of_all_tenants: bool = True
) -> JobList:
    """List the jobs that a filter takes, behind a cursor; what concerns other tenants is only said of all of them."""
    page = await find_page(queue, selection, after, limit=limit)
    return await _listed(queue, selection, page, of_all_tenants=of_all_tenants)


async def list_jobs_at_each(
    queues: Mapping[str, JobQueue], selection: JobFilter, after: str | None, limit: int, *, of_all_tenants: bool = True
) -> JobList:
    """List the jobs of several Redis, the latest first over all; it says which of them did not answer."""
    several = await find_at_each(queues, selection, after, limit=limit)
    lists = [
        await _listed(queues[name], selection, page, of_all_tenants=of_all_tenants)
        for name, page in several.pages.items()
    ]
    counts = [answer.counts for answer in lists if answer.counts is not None]
    states = dict.fromkeys(state for counted in counts for state in counted)
    return JobList(
        data=sorted((row for answer in lists for row in answer.data), key=lambda row: -row.since),
        has_more=several.next_cursor is not None,
        next_cursor=several.next_cursor,
        looked_at=sum(answer.looked_at or 0 for answer in lists) if of_all_tenants else None,
        counts={state: sum(counted.get(state, 0) for counted in counts) for state in states} if counts else None,
        counted=lists[0].counted if lists else None,
        left_out=sum(answer.left_out for answer in lists),
        unreachable=dict(several.unreachable) or UNSET,
    )


async def _listed(queue: JobQueue, selection: JobFilter, page: JobPage, *, of_all_tenants: bool) -> JobList:
    outcomes = await _read_outcomes(queue, [job.job_id for job in page.jobs if job.state is State.FINISHED])
    now_ms = page.plan.sizes.now_ms
    counts, counted = await _count(queue, selection, page)
    return JobList(
        data=[_row(job, outcomes.get(job.job_id, job.outcome), now_ms) for job in page.jobs],
        has_more=page.next_cursor is not None,
        next_cursor=page.next_cursor,
        looked_at=page.looked_at if of_all_tenants else None,
        counts=counts,
        counted=counted,
        left_out=page.plan.left_out,
    )


async def _read_outcomes(queue: JobQueue, job_ids: Sequence[str]) -> dict[str, Outcome]:
    """Read the outcomes of jobs that have finished; of each answer no more is kept than the row shows."""
    outcomes: dict[str, Outcome] = {}
    done = 0
    while left := job_ids[done : done + _BUNDLE]:
        rows = await queue.run(records_call(left, ("outcome",), MAX_BYTES))
        done += len(rows)
        for job_id, row in zip(left, rows, strict=False):
            if not isinstance(row, Exception) and row[0]:
                outcome = queue.signer.decode_stored(job_id, row[0])
                outcomes[job_id] = msgspec.structs.replace(outcome, body=msgspec.Raw(b"null"), text=None)
    return outcomes


def _row(job: FoundJob, outcome: Outcome | None, now_ms: int) -> JobRow:
    queue = job.queue
    return JobRow(
        id=readable(job.job_id),
        state=job.state,
        model=queue.model,
        tier=(outcome.tier if outcome else None) or job.tier,
        floor=(outcome.floor if outcome else None) or queue.tier,
        lane=Lane(queue.lane),
        tenant=job.tenant,
        tags=job.labels.tags,
        batch=job.batch,
        created_at=_seconds(job.created_ms),
        started_at=_seconds(job.started_ms),
        ended_at=_seconds(job.ended_ms),
        since=job.since_ms / 1000,
        age_s=max(0, now_ms - job.since_ms) / 1000,
        worker=job.worker,
        attempts=job.attempts,
        error=JobFailure(message=outcome.error, code=outcome.code) if outcome and outcome.error else None,
        cost=outcome.cost if outcome else None,
    )


def _seconds(at_ms: int | None) -> float | None:
    return None if at_ms is None else at_ms / 1000


async def _count(queue: JobQueue, selection: JobFilter, page: JobPage) -> tuple[dict[str, int] | None, str | None]:
    """Return how many jobs there are by state, and what that counts: no more than lists and registries say."""
    if selection.tenant == DEFAULT_TENANT:
        return None, None
    if selection.tenant is not None:
        (unended,) = await unended_jobs(queue, [selection.tenant], page.plan.sizes.now_ms)
        return {"queued_or_running": unended}, f"jobs of the tenant {selection.tenant} that have not ended"
    sizes = page.plan.sizes
    counts: dict[str, int] = {}
    if selection.has_state(State.QUEUED):
        counts["queued"] = sum(size.waiting for size in sizes.lists.values())
    if selection.has_state(State.RUNNING):
        counts["running"] = sum(size.running for size in sizes.queues.values())
    if selection.has_state(State.FINISHED):
        counts["finished"] = sum(size.finished for size in sizes.queues.values())
    if selection.has_state(State.FAILED, State.EXPIRED):
        counts["failed_or_expired"] = sum(size.failed for size in sizes.queues.values())
    if selection.has_state(State.CANCELLED):
        counts["cancelled"] = sum(size.canceled for size in sizes.queues.values())
    return counts, _scope(selection)


def _scope(selection: JobFilter) -> str:
    where = selection.model or "all models"
    lane = f", lane {selection.lane}" if selection.lane else ""
    tier = f"; of those that wait only at {selection.tier}" if selection.tier else ""
    return f"jobs of all tenants in the queues of {where}{lane}{tier}"
