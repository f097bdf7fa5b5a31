"""Cancel, purge and move many jobs, on a real Valkey: counted first, and never more than was counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis
from msgspec.structs import replace

from bitladder.contract import State
from bitladder.errors import RequestError
from bitladder.queue.calls.steering import Note, OrderRefusedError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.dead_letter_answers import DeadLetterSelection, drop, release
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue.json_views.steering.audit_log import noted, read_audit
from bitladder.queue.json_views.steering.chosen_jobs import JobsOrder
from bitladder.queue.json_views.steering.job_orders import MoveOrder, cancel, move, purge
from bitladder.queue.server.connection import connect
from tests.bitladder.queue.scripts.test_pauses import claim, ids, live, submit
from tests.conftest import make_settings


@pytest_asyncio.fixture
async def queue(redis_url: str, store: redis.Redis) -> AsyncIterator[JobQueue]:
    del store
    settings = make_settings(redis_url, queue__fair_depth=0)
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def states(queue: JobQueue, job_ids: list[str]) -> list[State]:
    views = [await queue.view(job_id) for job_id in job_ids]
    return [view.state for view in views if view]


ACME = JobFilter(tenant="acme")


async def test_a_cancel_by_filter_counts_first_and_tells_who_waits_at_once(queue: JobQueue, store: redis.Redis) -> None:
    acme = [await submit(queue, tenant="acme") for _ in range(3)]
    other = await submit(queue, tenant="globex")
    heard = store.pubsub()  # type: ignore[no-untyped-call]  # redis-py
    heard.subscribe(f"bl:done:{acme[0]}")
    heard.get_message(timeout=1)

    counted = await cancel(queue, JobsOrder(filter=ACME), "alice")
    late = await submit(queue, tenant="acme")
    done = await cancel(queue, JobsOrder(filter=ACME, dry_run=False, confirm=counted.confirm, reason="a loop"), "alice")
    message = heard.get_message(timeout=1)

    assert (counted.dry_run, counted.count, counted.results) == (True, 3, {})
    assert counted.by_queue == {"smollm2:int4:normal": 3}
    assert set(counted.examples) == set(acme)
    assert (done.count, done.results) == (3, {"cancelled": 3})
    assert message is not None
    assert b"cancelled by an operator" in message["data"]
    assert b"a loop" not in message["data"]
    assert await states(queue, [*acme, other, late]) == [State.CANCELLED] * 3 + [State.QUEUED] * 2
    assert sorted(ids(await claim(queue))) == sorted([other, late])
    log = (await read_audit(queue, 10)).data
    assert [(entry.what, entry.reason, entry.result) for entry in log] == [
        ("cancel", "a loop", {"cancelled": 3}),
        ("cancel", "a loop", "begun"),
    ]
    again = await cancel(queue, JobsOrder(filter=ACME, dry_run=False, confirm=counted.confirm), "alice")
    assert again.count == 0


async def test_an_order_that_is_none_of_a_dry_run_needs_a_count_and_never_exceeds_it(queue: JobQueue) -> None:
    jobs = [await submit(queue, tenant="acme") for _ in range(3)]
    counted = await purge(queue, JobsOrder(filter=ACME), "alice")

    with pytest.raises(RequestError, match="count first"):
        await purge(queue, JobsOrder(filter=ACME, dry_run=False), "alice")
    with pytest.raises(OrderRefusedError, match="3 jobs match now, and 2 were counted"):
        await purge(queue, JobsOrder(filter=ACME, dry_run=False, expected=2), "alice")
    for other in (JobsOrder(filter=JobFilter(), all=True), JobsOrder(filter=ACME, ids=jobs[:1])):
        stale = replace(other, dry_run=False, confirm=counted.confirm)
        with pytest.raises(RequestError, match="another order"):
            await purge(queue, stale, "alice")
    with pytest.raises(RequestError, match="another order"):
        await cancel(queue, JobsOrder(filter=ACME, dry_run=False, confirm=counted.confirm), "alice")
    with pytest.raises(RequestError, match='name jobs by filter or ids, or say "all": true'):
        await purge(queue, JobsOrder(), "alice")
    with pytest.raises(RequestError, match="purge is about jobs that are queued, not running"):
        await purge(queue, JobsOrder(filter=JobFilter(state=(State.RUNNING,))), "alice")

    assert await states(queue, jobs) == [State.QUEUED] * 3
    done = await purge(queue, JobsOrder(ids=[jobs[1]], dry_run=False, expected=1), "alice")
    assert done.results == {"cancelled": 1}
    assert await states(queue, jobs) == [State.QUEUED, State.CANCELLED, State.QUEUED]


async def test_a_purge_leaves_a_job_that_began_meanwhile_and_a_cancel_has_it_aborted(
    queue: JobQueue, store: redis.Redis
) -> None:
    job = await submit(queue, tenant="acme")
    counted = await purge(queue, JobsOrder(filter=ACME), "alice")
    await claim(queue)

    purged = await purge(queue, JobsOrder(filter=ACME, dry_run=False, confirm=counted.confirm), "alice")
    cancelled = await cancel(queue, JobsOrder(filter=ACME, dry_run=False, expected=1), "alice")

    assert (purged.count, purged.results) == (0, {})
    assert cancelled.results == {"requested": 1}
    assert store.sismember("bl:cancel:w-int4", job)


async def test_moved_jobs_wait_at_the_higher_tier_in_their_order_and_nowhere_else(
    queue: JobQueue, store: redis.Redis
) -> None:
    live(store, queue.settings, "int8")
    there = await submit(queue, tier="int8")
    jobs = [await submit(queue, tenant=tenant) for tenant in ("default", "acme", "default", "acme")]
    order = MoveOrder(to="int8", filter=JobFilter(tier="int4"))

    counted = await move(queue, order, "alice")
    moved = await move(queue, replace(order, dry_run=False, confirm=counted.confirm), "alice")

    assert (counted.count, moved.results) == (4, {"moved": 4})
    views = [view for job_id in jobs if (view := await queue.view(job_id))]
    assert {view.queue for view in views} == {"smollm2:int8:normal"}
    depths = {depth.queue: depth.depth for depth in (await queue.depths("smollm2")).queues}
    assert (depths["smollm2:int4:normal"], depths["smollm2:int8:normal"]) == (0, 5)
    assert await claim(queue, "int4") == []
    claimed = ids(await claim(queue, "int8"))
    assert sorted(claimed) == sorted([there, *jobs])
    assert [job for job in claimed if job in (jobs[0], jobs[2])] == [jobs[0], jobs[2]]
    assert [job for job in claimed if job in (jobs[1], jobs[3])] == [jobs[1], jobs[3]]
    assert await claim(queue, "int8") == []


async def test_jobs_are_moved_only_where_they_may_be_served_and_somebody_lives(
    queue: JobQueue, store: redis.Redis
) -> None:
    order = MoveOrder(to="fp8", filter=JobFilter(tier="int4"))
    with pytest.raises(OrderRefusedError, match="smollm2 fp8 has no live worker"):
        await move(queue, order, "alice")
    live(store, queue.settings, "fp8")
    low = await submit(queue, limit=":max-int8")
    some = await submit(queue, lane="batch", limit=":only-int4,fp8")

    moved = await move(queue, replace(order, dry_run=False, expected=2), "alice")

    assert moved.results == {"moved": 1, "not allowed there": 1}
    assert ids(await claim(queue, "fp8")) == [some, low][:1]


async def test_jobs_of_tiers_that_the_configuration_has_no_more_stay_and_so_does_what_has_no_room_there(
    queue: JobQueue, store: redis.Redis
) -> None:
    live(store, queue.settings, "int8")
    jobs = [await submit(queue), await submit(queue, limit=":max-int9")]
    store.rename("rq:queue:smollm2:int4:normal", "rq:queue:smollm2:int2:normal")
    store.sadd("rq:queues", "rq:queue:smollm2:int2:normal")
    store.hset(f"rq:job:{jobs[0]}", "origin", "smollm2:int2:normal")
    jobs += [await submit(queue) for _ in range(3)]
    full = JobQueue(queue.client, make_settings(queue.settings.redis.url, queue__max_depth=2))
    await submit(queue, tier="int8")

    moved = await move(full, MoveOrder(to="int8", filter=JobFilter(), dry_run=False, expected=6), "alice")

    assert moved.results == {"not allowed there": 3, "moved": 1, "no room there": 2}  # the third is there already
    views = [view for job_id in jobs if (view := await queue.view(job_id))]
    assert [view.queue for view in views] == [
        "smollm2:int2:normal",
        "smollm2:int4:normal:max-int9",
        "smollm2:int8:normal",
        "smollm2:int4:normal",
        "smollm2:int4:normal",
    ]


async def test_an_order_that_stops_or_is_killed_is_told_from_one_that_ended(queue: JobQueue) -> None:
    on = Note(operator="alice", what="purge", on="x" * 100_000, reason="")
    with contextlib.suppress(asyncio.CancelledError):
        async with noted(queue, on, {"cancelled": 100}):
            raise asyncio.CancelledError  # Ctrl-C
    async with noted(queue, on, {"cancelled": 3}):
        (under_way,) = (await read_audit(queue, 1)).data

    log = await read_audit(queue, 3)
    older = await read_audit(queue, 3, log.next_cursor)

    assert under_way.result == "not ended"
    assert [entry.result for entry in log.data] == [
        {"cancelled": 3},
        "begun",
        {"cancelled": 100, "stopped": "interrupted"},
    ]
    assert [entry.result for entry in older.data] == ["begun"]
    assert log.data[0].began == log.data[1].id
    assert len(log.data[0].on) == 2001


async def test_a_moved_job_keeps_its_deadline_and_ends_by_it(queue: JobQueue, store: redis.Redis) -> None:
    live(store, queue.settings, "int8")
    job = await submit(queue, tenant="acme", deadline_ms=60_000)
    before = store.zscore("bl:due:smollm2:int4:normal:tenant-acme", job)

    await move(queue, MoveOrder(to="int8", filter=ACME, dry_run=False, expected=1), "alice")

    assert before is not None
    assert store.zscore("bl:due:smollm2:int8:normal:tenant-acme", job) == before
    assert not store.exists("bl:due:smollm2:int4:normal:tenant-acme")
    (claimed,) = await claim(queue, "int8")
    assert claimed.deadline_ms == before


async def test_orders_on_dead_letters_stand_in_the_log_and_their_dry_runs_do_not(queue: JobQueue) -> None:
    await release(queue, DeadLetterSelection(all=True, dry_run=True), "alice")
    await drop(queue, DeadLetterSelection(code="poison", reason="known"), "alice")

    log = (await read_audit(queue, 10)).data

    assert [(entry.what, entry.reason, entry.result) for entry in log] == [
        ("drop dead letters", "known", {"jobs": 0}),
        ("drop dead letters", "known", "begun"),
    ]
    assert '"code":"poison"' in log[0].on
