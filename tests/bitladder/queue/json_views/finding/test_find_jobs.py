"""bitladder/queue/json_views/finding: which jobs a page has, in which order, on a real Valkey."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
import redis

from bitladder.contract import Outcome, State, Submission
from bitladder.errors import RequestError
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.cursor import Mark, write_cursor
from bitladder.queue.json_views.finding.find_jobs import find_jobs, find_page
from bitladder.queue.json_views.finding.found_job import FoundJob
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue_name import list_of
from tests.bitladder.queue.test_job_queue import DONE, claim, job, submit
from tests.bitladder.queue.test_job_queue import queue as queue  # the fixture
from tests.conftest import wait_until

BROKEN = Outcome(state=State.FAILED, status=502, code="engine_fault", error="it broke")
REFUSED = Outcome(state=State.FAILED, status=400, code="refused_by_engine", error="no")


def job_of(tenant: str, tier: str = "int4", lane: str = "normal") -> Submission:
    mine = job(tier, lane)
    return msgspec.structs.replace(mine, request=msgspec.structs.replace(mine.request, tenant=tenant))


async def found(queue: JobQueue, **wanted: object) -> list[FoundJob]:
    pages = [page async for page in find_jobs(queue, msgspec.convert(wanted, JobFilter), limit=7)]
    return [job for page in pages for job in page.jobs]


async def kill(queue: JobQueue, tier: str) -> None:
    """Use up the attempts of what a claim brings."""
    for _ in range(queue.settings.queue.max_attempts):
        for claimed in await claim(queue, tier, 1):
            await queue.requeue(f"w-{tier}", claimed, claimed.queue, reason=RequeueReason.CHARGED, last=BROKEN)


async def finish(queue: JobQueue, tier: str, outcome: Outcome, slots: int = 1) -> list[str]:
    claimed = await claim(queue, tier, slots)
    await queue.finish(f"w-{tier}", [Finished(job=one, outcome=outcome) for one in claimed])
    return [one.job_id for one in claimed]


def tick(store: redis.Redis) -> None:
    """Wait until the server's clock shows another millisecond: of one, nothing says what came last."""
    begin = store.time()
    wait_until(lambda: store.time()[1] // 1000 != begin[1] // 1000, "the clock has moved")


async def churn(queue: JobQueue, rng: random.Random) -> None:
    """Do what changes the lists and registries between two pages."""
    tier = rng.choice(("int4", "int8", "fp8"))
    jobs = [job_of(rng.choice(("default", "a", "b")), rng.choice(("int4", "int8")), rng.choice(("normal", "batch")))]
    match rng.randrange(6):
        case 0:
            await submit(queue, *jobs, job(deadline_ms=60_000))
        case 1:
            await finish(queue, tier, rng.choice((DONE, REFUSED)), 2)
        case 2:
            await kill(queue, tier)
        case 3:
            for claimed in await claim(queue, tier, 3):
                target = rng.choice((claimed.queue, "smollm2:int8:normal"))
                await queue.requeue(f"w-{tier}", claimed, target, reason=RequeueReason.UNCHARGED, last=BROKEN)
        case 4:
            await claim(queue, tier, 2)
        case 5:
            waiting = await found(queue, state=["queued"])
            await queue.cancel(rng.choice(waiting).job_id if waiting else "none")


async def states(queue: JobQueue) -> dict[str, tuple[State, int]]:
    return {job.job_id: (job.state, job.attempts) for job in await found(queue)}


@pytest.mark.parametrize("seed", range(6))
async def test_a_job_that_stays_in_its_state_is_on_one_page_whatever_becomes_of_others(
    queue: JobQueue, store: redis.Redis, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  (no secret)
    for _ in range(60):
        await churn(queue, rng)
    before, after, shown = await states(queue), None, Counter[tuple[str, State]]()

    while True:
        page = await find_page(queue, JobFilter(), after, limit=3)
        shown.update((job.job_id, job.state) for job in page.jobs)
        if (after := page.next_cursor) is None:
            break
        await churn(queue, rng)
    end = await states(queue)

    stayed = {(job_id, state[0]) for job_id, state in before.items() if end.get(job_id) == state}
    records = {key.removeprefix(b"rq:job:").decode() for key in store.scan_iter("rq:job:*")}
    assert len(stayed) > 10
    assert {entry for entry in stayed if shown[entry] != 1} == set()
    assert max(shown.values()) == 1
    assert end.keys() == records


async def test_jobs_of_all_states_come_the_latest_first_however_long_they_are_kept(
    queue: JobQueue, store: redis.Redis
) -> None:
    ended: list[str] = []
    for number in range(12):
        new = job("int8")
        is_response = number % 3 == 1
        response = msgspec.structs.replace(new, job_id=f"resp_{new.job_id.replace('-', '')}")
        await submit(queue, response if is_response else new)
        if number % 3 == 2:
            await kill(queue, "int8")
        else:
            await finish(queue, "int8", DONE if number % 2 else REFUSED)
        ended.insert(0, response.job_id if is_response else new.job_id)
        tick(store)
    running, waiting = job("int8"), [job("int8"), job("int4", "batch")]
    await submit(queue, running)
    await claim(queue, "int8", 1)
    for new in waiting:
        tick(store)
        await submit(queue, new)

    listed = await found(queue)

    times = [job.since_ms for job in listed]
    assert times == sorted(times, reverse=True)
    assert [job.job_id for job in listed] == [*(job.job_id for job in reversed(waiting)), running.job_id, *ended]


@pytest.mark.parametrize("is_over", [True, False])
async def test_of_hundreds_that_end_in_one_second_each_is_on_one_page_while_more_end(
    queue: JobQueue, store: redis.Redis, is_over: bool
) -> None:
    await submit(queue, *(job() for _ in range(400)))
    ids = set(await finish(queue, "int4", DONE, 300))
    if is_over:
        second = store.time()[0]
        wait_until(lambda: store.time()[0] > second, "the second is over")
    shown, after = Counter[str](), None

    while True:
        page = await find_page(queue, JobFilter(state=(State.FINISHED,)), after, limit=40)
        shown.update(job.job_id for job in page.jobs)
        if (after := page.next_cursor) is None:
            break
        await finish(queue, "int4", DONE, 8)

    assert {job_id for job_id in ids if shown[job_id] != 1} == set()
    assert max(shown.values()) == 1


async def test_a_cursor_of_another_filter_and_any_other_text_are_refused(queue: JobQueue) -> None:
    await submit(queue, job(), job())
    page = await find_page(queue, JobFilter(), limit=1)
    assert page.next_cursor

    with pytest.raises(RequestError, match="same filters"):
        await find_page(queue, JobFilter(tenant="a"), page.next_cursor, limit=1)
    deep = write_cursor(JobFilter(), begun_ms=2**53, at_ms=-(2**53), mark=Mark(2**53, "x" * 900, b"\xff"), lists={})
    assert (await find_page(queue, JobFilter(), deep, limit=1)).jobs == []
    for text in ("", "x", "é", "A" * 100_000, page.next_cursor[:-3], "gA", page.next_cursor + "AAAA"):
        with pytest.raises(RequestError, match="next_cursor of an earlier page"):
            await find_page(queue, JobFilter(), text, limit=1)


async def test_each_filter_takes_its_jobs_and_no_others(queue: JobQueue) -> None:
    tagged = msgspec.structs.replace(job(), labels='{"tags":["nightly","x"]}')
    keyed = msgspec.structs.replace(job_of("a"), idempotency_key="a:my:key", fingerprint="f")
    line = msgspec.structs.replace(job(lane="batch"), job_id="batch_0123-17")
    await submit(queue, tagged, line)
    await submit(queue, keyed)
    await submit(queue, job("int8"))
    (broken,) = await finish(queue, "int8", REFUSED)

    async def ids(**wanted: object) -> list[str]:
        return sorted(one.job_id for one in await found(queue, **wanted))

    assert await ids(tag="nightly") == [tagged.job_id]
    assert await ids(tenant="a") == await ids(key="my:key") == [keyed.job_id]
    assert await ids(batch="batch_0123") == await ids(lane="batch") == [line.job_id]
    assert await ids(tier="int8") == await ids(error="refused_by_engine") == await ids(state=["failed"]) == [broken]
    assert await ids(older_than=3600) == await ids(tag="night") == await ids(model="other") == []
    assert len(await ids(older_than=0, model="smollm2")) == 4


async def test_records_that_no_producer_of_ours_wrote_do_not_break_a_page(queue: JobQueue, store: redis.Redis) -> None:
    mine = job()
    await submit(queue, mine)
    name = "smollm2:int4:normal"
    odd = {
        b"\xff\x00:%": {"status": "queued", "created_at": b"\xff"},
        b"later": {"status": "queued", "wait": "9e999 x"},
    }
    for job_id, fields in odd.items():
        store.hset(b"rq:job:" + job_id, mapping=fields)  # type: ignore[arg-type]  # redis-py
        store.rpush(f"rq:queue:{name}", job_id)
        store.zadd(f"rq:wip:{name}", {job_id: 1})
        store.zadd(f"rq:failed:{name}", {job_id: "inf"})
    store.set("rq:job:text", "x")
    store.rpush(f"rq:queue:{name}", "text", "gone", "x" * 5000)
    store.set(f"rq:finished:{name}", "x")
    store.sadd("rq:queues", "rq:queue:other", b"rq:queue:\xff", f"rq:queue:{list_of(name, 'a')}", "rq:queue:a:b:normal")
    store.set(f"rq:queue:{list_of(name, 'a')}", "x")

    listed = await found(queue)

    assert {job.job_id for job in listed} >= {mine.job_id}
    assert {job.state for job in listed} == {State.QUEUED}
