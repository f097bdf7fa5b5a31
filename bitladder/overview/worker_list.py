"""GET /v1/workers: which workers there are, and in which state."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from redis.exceptions import RedisError

from bitladder.queue.calls.read import Overview
from bitladder.queue.calls.worker_report import STALE_MS, Breaker, WorkerReport, read_report
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.found_job import read_time
from bitladder.queue.json_views.kinds import Count, Timestamp
from bitladder.queue.pauses import pause_of_tier
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.untrusted import MAX_NUMBER, read_number, short

MAX_WORKERS = 2000
_FIELDS = (
    "model",
    "tier",
    "hostname",
    "pid",
    "version",
    "birth",
    "last_heartbeat",
    "ready",
    "held",
    "reported",
    "report",
)


class WorkerState(StrEnum):
    """What a worker does."""

    STARTING = "starting"  # its engine has not answered yet
    READY = "ready"
    SUSPENDED = "suspended"  # it is ready, and claims pause for its tier, its model or everything
    BROKEN = "broken"  # its engine answered once, and does not now
    DRAINING = "draining"  # it ends, changes its checkpoint or stays idle, once its jobs have ended
    SILENT = "silent"  # it has its lease, and has not reported for some seconds
    LOST = "lost"  # its lease ran out: another worker requeues its jobs


_Maybe = Annotated[str | None, Meta(description="null: an earlier version does not say it.")]
_Slots = Annotated[Count | None, Meta(description="Jobs it may hold now; null: it does not report.")]
_Ready = Annotated[Timestamp | None, Meta(description="null: it is not ready, or is of an earlier version.")]
_Rate = Annotated[float | None, Meta(description="Of the last ten seconds; null: it does not report.")]


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One worker."""

    worker: str
    model: str
    tier: str
    state: WorkerState
    host: str
    pid: Count | None
    version: str
    checkpoint: _Maybe
    release: Annotated[int | None, Meta(description="Of the published release; null: its checkpoint is of none.")]
    slots: _Slots
    in_flight: Count
    tokens_per_s: _Rate
    jobs_per_s: _Rate
    jobs: Annotated[Count | None, Meta(description="That ended here since its start.")]
    breaker: Breaker | None
    started_at: Timestamp | None
    ready_since: _Ready
    heartbeat_at: Annotated[Timestamp | None, Meta(description="When it renewed its lease last.")]


class WorkerList(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that have or lately had a lease, by model, tier and name."""

    object: Literal["list"] = "list"
    data: Annotated[list[WorkerRow], Meta(max_length=MAX_WORKERS)]
    has_more: bool
    total: Count


async def list_workers(queue: JobQueue) -> WorkerList:
    """List the workers.

    Raises:
        QueueUnreachableError: Redis is unreachable or refuses.

    """
    overview = await queue.overview()
    try:
        async with queue.client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zcard("bl:workers")
            pipe.zrange("bl:workers", 0, MAX_WORKERS - 1, withscores=True)
            (second, microsecond), total, leases = await pipe.execute()
        async with queue.client.pipeline(transaction=False) as pipe:
            for name, _ in leases:
                pipe.hmget(b"rq:worker:" + name, list(_FIELDS))
            hashes: list[Any] = await pipe.execute(raise_on_error=False)
    except (RedisError, OSError) as error:
        raise unreachable("cannot list the workers", error) from error
    now_ms = int(second) * 1000 + int(microsecond) // 1000
    rows = [
        _row(
            name,
            (now_ms, int(min(end_ms, MAX_NUMBER))),
            hash_ if isinstance(hash_, list) else [None] * len(_FIELDS),
            overview,
        )
        for (name, end_ms), hash_ in zip(leases, hashes, strict=True)
    ]
    rows.sort(key=lambda row: (row.model, row.tier, row.worker))
    return WorkerList(data=rows, has_more=int(total) > len(rows), total=int(total))


def _row(name: bytes, lease: tuple[int, int], values: Sequence[bytes | None], overview: Overview) -> WorkerRow:
    """Return a worker; `lease`: now, and when its lease ends."""
    now_ms = lease[0]
    fields = dict(zip(_FIELDS, (value or b"" for value in values), strict=True))
    report, reported_ms = read_report(fields["report"]), read_number(fields["reported"]) or 0
    is_fresh = report is not None and now_ms - reported_ms <= STALE_MS
    held = max(0, read_number(fields["held"]) or 0)
    ready_ms = report.ready_since_ms if report else 0
    model, tier = _text(fields["model"]), _text(fields["tier"])
    is_suspended = overview.is_suspended or pause_of_tier(overview.pauses, model, tier) is not None
    return WorkerRow(
        worker=_text(name),
        model=model,
        tier=tier,
        state=_state(fields["ready"] == b"1", report, is_fresh, lease=lease, is_suspended=is_suspended),
        host=_text(fields["hostname"]),
        pid=read_number(fields["pid"]),
        version=_text(fields["version"]),
        checkpoint=(report.checkpoint if report else "") or None,
        release=report.release if report else None,
        slots=report.slots if report else None,
        in_flight=report.in_flight if report and is_fresh and report.in_flight is not None else held,
        tokens_per_s=report.tokens_per_s if report and is_fresh else None,
        jobs_per_s=report.jobs_per_s if report and is_fresh else None,
        jobs=report.jobs if report else None,
        breaker=report.breaker if report else None,
        started_at=_seconds(read_time(fields["birth"])),
        ready_since=ready_ms / 1000 if ready_ms else None,
        heartbeat_at=_seconds(read_time(fields["last_heartbeat"])),
    )


def _state(
    is_ready: bool, report: WorkerReport | None, is_fresh: bool, *, lease: tuple[int, int], is_suspended: bool
) -> WorkerState:
    now_ms, end_ms = lease
    if end_ms <= now_ms:
        return WorkerState.LOST
    if report and not is_fresh:
        return WorkerState.SILENT
    if report and report.is_draining:
        return WorkerState.DRAINING
    # A drain and a fault turn it unready before the next report says which of them it is.
    if not is_ready and not (report and report.ready_since_ms):
        return WorkerState.BROKEN if report and report.was_ready else WorkerState.STARTING
    return WorkerState.SUSPENDED if is_suspended else WorkerState.READY


def _text(raw: bytes) -> str:
    return short(raw.decode(errors="replace"))


def _seconds(at_ms: int | None) -> float | None:
    return None if at_ms is None else at_ms / 1000
