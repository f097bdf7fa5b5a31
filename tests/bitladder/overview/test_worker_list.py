"""bitladder/overview/worker_list.py: what is said of each worker, on a real Valkey."""

from __future__ import annotations

import redis

from bitladder.overview.worker_list import WorkerState, list_workers
from bitladder.queue.calls.leases import WorkerEntry, extend_call
from bitladder.queue.calls.tier_state import health_call
from bitladder.queue.calls.worker_report import WorkerReport
from bitladder.queue.job_queue import JobQueue
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture

READY = WorkerReport(
    slots=16, in_flight=3, tokens_per_s=12.5, checkpoint="{cache}/int4", release=7, ready_since_ms=1500, was_ready=True
)


async def work(queue: JobQueue, name: str, report: WorkerReport | None, *, is_ready: bool = True) -> None:
    """Do what a worker does once a second."""
    entry = WorkerEntry(name=name, model="smollm2", tier="int4", pid=7, host="node-1", software="bitladder 1.2")
    await queue.run(extend_call(queue.settings, entry, is_ready=is_ready))
    if report:
        call = health_call(queue.settings, "smollm2", "int4", sound=0, faults=0, report=(name, report))
        await queue.run(call)


async def states(queue: JobQueue) -> dict[str, WorkerState]:
    return {row.worker: row.state for row in (await list_workers(queue)).data}


async def test_each_state_of_a_worker_is_told_from_the_others(queue: JobQueue, store: redis.Redis) -> None:
    await work(queue, "ready", READY)
    await work(queue, "starting", WorkerReport(), is_ready=False)
    await work(queue, "broken", WorkerReport(was_ready=True), is_ready=False)
    await work(queue, "draining", WorkerReport(was_ready=True, is_draining=True), is_ready=False)
    await work(queue, "earlier", None)
    await work(queue, "silent", READY)
    store.hset("rq:worker:silent", "reported", 1)
    await work(queue, "turning", READY, is_ready=False)  # its next report says what it does now
    await work(queue, "endless", READY)
    store.zadd("bl:workers", {"endless": float("inf")})
    await work(queue, "lost", READY)
    store.zadd("bl:workers", {"lost": 1})

    also_ready = ("earlier", "turning", "endless")

    usual = await states(queue)
    store.set("rq:suspended", "1")
    suspended = await states(queue)

    assert usual == {
        **{name: WorkerState(name) for name in ("ready", "starting", "broken", "draining", "silent", "lost")},
        **dict.fromkeys(also_ready, WorkerState.READY),
    }
    assert suspended == usual | dict.fromkeys(("ready", *also_ready), WorkerState.SUSPENDED)


async def test_a_worker_s_row_says_where_it_runs_and_what_it_serves(queue: JobQueue, store: redis.Redis) -> None:
    await work(queue, "w", READY)
    store.zadd("bl:workers", {b"\xff odd": 9e15, b"text": 9e15})
    store.set("rq:worker:text", "no hash")

    rows = {row.worker: row for row in (await list_workers(queue)).data}

    row = rows["w"]
    assert (row.model, row.tier, row.host, row.pid, row.version) == ("smollm2", "int4", "node-1", 7, "bitladder 1.2")
    assert (row.checkpoint, row.release, row.slots, row.in_flight) == ("{cache}/int4", 7, 16, 3)
    assert (row.tokens_per_s, row.ready_since) == (12.5, 1.5)
    assert row.started_at is not None
    assert (len(rows), rows["text"].model, rows["text"].pid) == (3, "", None)
