"""Scripts of webhooks: the step that ends a job with a hook notes it, and a job without one costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
import pytest_asyncio
import redis

from bitladder.contract import Outcome, State
from bitladder.queue.calls.end import Doubtful, Finished, RequeueReason
from bitladder.queue.calls.upkeep import release_call
from bitladder.queue.calls.webhooks import (
    MAX_TARGETS,
    Attempt,
    Hook,
    deliver_call,
    note_attempt_call,
    read_taken,
    take_call,
    watch_call,
)
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from dispatcher.webhooks.deliveries import Event, read_event
from tests.bitladder.queue.test_job_queue import DONE, claim, job, lose, submit

HOOK = Hook(tenant="acme", url="https://app.example.org/", secret="whsec_x").text()  # noqa: S106  (no secret)
FAILED = Outcome(state=State.FAILED, status=500, code="engine_fault", error="it broke")


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


def noted(store: redis.Redis) -> list[Event]:
    """Return the events that wait."""
    return [read_event(line) for line in store.lrange("bl:webhooks:events", 0, -1) if isinstance(line, bytes)]


def ends(store: redis.Redis) -> dict[str, str]:
    """Return the types of the events that wait, by what they are about."""
    events = noted(store)
    assert {event.hook.tenant for event in events} <= {"acme"}
    assert len({event.id for event in events}) == len(events)
    return {event.about: event.type for event in events}


async def test_every_way_a_job_ends_leaves_one_event(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, *(job(hook=HOOK) for _ in range(7)))
    jobs = await claim(queue, "int4")
    outcomes = {
        "job.finished": DONE,
        "job.failed": FAILED,
        "job.cancelled": Outcome(state=State.CANCELLED, status=409),
        "job.expired": Outcome(state=State.EXPIRED, status=504),
    }
    expected = {}
    for (name, outcome), claimed in zip(outcomes.items(), jobs, strict=False):
        await queue.finish("w-int4", [Finished(job=claimed, outcome=outcome)])
        await queue.finish("w-int4", [Finished(job=claimed, outcome=outcome)])  # its answer was lost
        expected[claimed.job_id] = name
    await queue.finish("w-int4", [Finished(job=jobs[4], outcome=FAILED, is_dead_letter=True)])
    await queue.requeue("w-int4", jobs[5], jobs[5].queue, reason=RequeueReason.REFUSED, last=FAILED)
    expected |= {jobs[4].job_id: "job.failed", jobs[5].job_id: "job.failed"}
    assert await queue.cancel(jobs[6].job_id) == "requested"  # its worker is lost then
    await lose(queue, store, "w-int4")
    expected[jobs[6].job_id] = "job.cancelled"
    waiting, late, gone = [
        str(job_id) for job_id in await submit(queue, job(hook=HOOK), job(hook=HOOK, deadline_ms=1), job(hook=HOOK))
    ]
    await asyncio.sleep(0.01)
    assert await queue.cancel(waiting) == "cancelled"
    assert await queue.expire(late)
    await queue.withdraw([Doubtful(job_id=gone, queue=job().queue, tenant="acme")])
    expected |= {waiting: "job.cancelled", late: "job.expired", gone: "job.cancelled"}

    assert ends(store) == expected
    assert store.llen("bl:webhooks:events") == len(expected)
    assert not store.exists("bl:webhooks:watched")


async def test_a_job_that_is_claimed_behind_its_deadline_leaves_an_event(queue: JobQueue, store: redis.Redis) -> None:
    (late,) = await submit(queue, job(hook=HOOK, deadline_ms=1))
    await asyncio.sleep(0.01)
    assert await claim(queue, "int4") == []

    assert ends(store) == {late: "job.expired"}


async def test_a_job_that_nobody_looks_at_is_ended_after_its_deadline(queue: JobQueue, store: redis.Redis) -> None:
    late, running, in_time = await submit(queue, job(hook=HOOK, deadline_ms=1), job(hook=HOOK), job(hook=HOOK))
    store.hset(f"rq:job:{running}", "status", "started")
    store.zadd("bl:webhooks:watched", {str(running): 1})
    await asyncio.sleep(0.01)
    assert await queue.run(watch_call(queue.settings)) == [str(late).encode()]
    assert ends(store) == {late: "job.expired"}
    assert (store.zscore("bl:webhooks:watched", str(running)) or 0) > 1e12, "it is looked at again later"
    store.pexpire(f"rq:job:{running}", 30_000)  # nobody has reaped its worker, and its record is about to go
    store.zadd("bl:webhooks:watched", {str(running): 1, "unknown": 1})
    await queue.run(watch_call(queue.settings))

    assert ends(store) == {late: "job.expired", running: "job.failed"}
    assert store.zrange("bl:webhooks:watched", 0, -1) == [str(in_time).encode()]


async def test_a_released_dead_letter_is_told_of_once_more(queue: JobQueue, store: redis.Redis) -> None:
    await submit(queue, job(hook=HOOK))
    (claimed,) = await claim(queue, "int4")
    await queue.finish("w-int4", [Finished(job=claimed, outcome=FAILED, is_dead_letter=True)])
    await queue.run(release_call(queue.settings, [claimed.job_id]))
    assert (store.zscore("bl:webhooks:watched", claimed.job_id) or 0) > 1e12
    (again,) = await claim(queue, "int4")
    await queue.finish("w-int4", [Finished(job=again, outcome=DONE)])

    assert [event.type for event in noted(store)] == ["job.failed", "job.finished"]


async def test_a_job_without_a_hook_costs_the_commands_that_it_cost_before(queue: JobQueue, store: redis.Redis) -> None:
    async def commands(hook: str) -> dict[str, int]:
        store.flushall()
        await submit(queue, job(hook=""), job(hook=""))  # the lists and scripts are there
        await claim(queue, "int4", 1)
        store.config_resetstat()
        await submit(queue, job(hook=hook))
        _, claimed = await claim(queue, "int4")
        await queue.finish("w-int4", [Finished(job=claimed, outcome=DONE)])
        stats = store.info("commandstats")
        return {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}

    without, with_hook = await commands(""), await commands(HOOK)

    more = {name: with_hook[name] - without.get(name, 0) for name in with_hook if with_hook[name] != without.get(name)}
    assert more == {"zadd": 1, "rpush": 1, "zrem": 1}


class Deliveries:
    """Deliveries to two destinations."""

    def __init__(self, queue: JobQueue, store: redis.Redis) -> None:
        self.queue, self.store = queue, store

    async def add(self, *pairs: tuple[str, str], maximum: int = 100) -> int:
        made = [(target, event_id, msgspec.json.encode({"of": event_id})) for target, event_id in pairs]
        return int(await self.queue.run(deliver_call(b"", maximum, made)))

    async def take(
        self, lease_ms: int = 60_000, maximum: int = MAX_TARGETS, served: Sequence[str] = ()
    ) -> dict[str, list[str]]:
        taken = read_taken(await self.queue.run(take_call(lease_ms, maximum, served)))
        self.leases = {target.name: target.lease for target in taken.targets}
        self.stored = {event_id: stored for target in taken.targets for event_id, stored in target.deliveries}
        return {target.name: [event_id for event_id, _ in target.deliveries] for target in taken.targets}

    async def note(self, target: str, event_id: str, *, is_last: bool = False, **fields: object) -> str:
        lease = self.leases[target] if is_last else None
        attempt = Attempt(target=target, event_id=event_id, before=self.stored[event_id], about="j", lease=lease)
        attempt = msgspec.structs.replace(attempt, **fields)
        answer: bytes = await self.queue.run(note_attempt_call(attempt, 60))
        return answer.decode()


async def test_a_destination_is_sent_to_by_one_process_until_its_lease_ends(
    queue: JobQueue, store: redis.Redis
) -> None:
    deliveries = Deliveries(queue, store)
    await deliveries.add(("a", "1"), ("a", "2"), ("b", "1"))
    assert await deliveries.take(lease_ms=150) == {"a": ["1", "2"], "b": ["1"]}
    await deliveries.add(("a", "3"))
    assert await deliveries.take() == {}, "both are taken, the new one waits"
    await asyncio.sleep(0.2)  # the process was killed
    assert await deliveries.take() == {"a": ["1", "2", "3"], "b": ["1"]}
    assert await deliveries.note("a", "1") == "noted"
    assert await deliveries.note("a", "1") == "lost"
    assert await deliveries.note("a", "2", after=b"again", delay_ms=5) == "noted"
    assert await deliveries.note("a", "3", is_last=True) == "noted"
    await asyncio.sleep(0.02)

    assert await deliveries.take() == {"a": ["2"]}
    assert await deliveries.note("a", "2", is_last=True) == "noted"
    assert store.keys("bl:webhooks:*:a") == []


async def test_a_tenants_many_destinations_leave_places_for_those_of_others(
    queue: JobQueue, store: redis.Redis
) -> None:
    deliveries, hanging = Deliveries(queue, store), [f"url_acme_{number:x}" for number in range(600)]
    await deliveries.add(*((target, "1") for target in hanging))
    first = list(await deliveries.take())
    assert len(first) == MAX_TARGETS / 2, "as many as are left free"
    store.hset("bl:webhooks:endpoint:we_acme", "tenant", "acme")
    await deliveries.add(("we_acme", "1"), *((f"url_globex_{number}", "1") for number in range(20)))

    served = first
    for _ in range(4):  # those of acme that are due come before
        served = served + list(await deliveries.take(maximum=MAX_TARGETS - len(served), served=served))

    assert [target for target in served if "acme" in target] == first
    assert len([target for target in served if "globex" in target]) == MAX_TARGETS / 4, "of what was left one half"


async def test_the_log_about_a_job_is_kept_no_longer_than_the_job(queue: JobQueue, store: redis.Redis) -> None:
    deliveries = Deliveries(queue, store)
    store.set("rq:job:j", "", px=50_000)
    await deliveries.add(("a", "1"), ("a", "2"))
    await deliveries.take()

    await deliveries.note("a", "1", entry=b"{}")
    assert 0 < store.pttl("bl:webhooks:about:j") <= 50_000
    store.delete("rq:job:j", "bl:webhooks:about:j")
    await deliveries.note("a", "2", entry=b"{}")
    assert not store.exists("bl:webhooks:about:j")


async def test_what_waits_for_a_destination_is_bounded(queue: JobQueue, store: redis.Redis) -> None:
    deliveries = Deliveries(queue, store)

    assert await deliveries.add(("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), maximum=2) == 1
    assert await deliveries.take() == {"a": ["1", "2"], "b": ["1"]}


@pytest.mark.parametrize("health", ["gone", "failed"])
async def test_an_endpoint_that_is_gone_or_fails_for_too_long_is_disabled(
    queue: JobQueue, store: redis.Redis, health: str
) -> None:
    deliveries = Deliveries(queue, store)
    store.hset("bl:webhooks:endpoint:a", mapping={"url": "https://x.example/", "failing_since": 1})
    await deliveries.add(("a", "1"), ("a", "2"))
    await deliveries.take()

    assert await deliveries.note("a", "1", health=health) == "disabled"
    assert await deliveries.note("a", "2", health=health, is_last=True) == "lost"
    assert store.hget("bl:webhooks:endpoint:a", "disabled_by") == health.encode()
    assert store.smembers("bl:webhooks:disabled") == {b"a"}
    assert not store.exists("bl:webhooks:pending:a", "bl:webhooks:due:a", "bl:webhooks:targets")
