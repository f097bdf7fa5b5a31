"""What is paused is given to nobody, on a real Valkey: the scripts themselves, without workers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
import redis
import uuid_utils

from bitladder.contract import Claimed, Request, Submission
from bitladder.decision import Decision
from bitladder.errors import RequestError
from bitladder.queue.calls.steering import OrderRefusedError
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.steering.audit_log import read_audit
from bitladder.queue.json_views.steering.pausing import PauseOrder, ResumeOrder, list_pauses, pause, resume
from bitladder.queue.pauses import MAX_PAUSES
from bitladder.queue.server.connection import connect
from bitladder.queue_name import Lane, QueueName
from bitladder.settings.sections import Settings
from tests.conftest import make_settings


@pytest_asyncio.fixture
async def queue(redis_url: str, store: redis.Redis) -> AsyncIterator[JobQueue]:
    del store
    settings = make_settings(redis_url, queue__fair_depth=0)
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def submit(
    queue: JobQueue,
    *,
    tier: str = "int4",
    lane: str = "normal",
    tenant: str = "default",
    limit: str = "",
    deadline_ms: int | None = None,
) -> str:
    job = Submission(
        job_id=str(uuid_utils.uuid7()),
        model="smollm2",
        queue=f"{QueueName('smollm2', tier, lane)}{limit}",
        request=Request(body=msgspec.Raw(b'{"prompt":"x"}'), decision=Decision(floor=tier), tenant=tenant),
        deadline_ms=deadline_ms,
    )
    assert await queue.submit([job]) == [job.job_id]
    return job.job_id


async def claim(queue: JobQueue, tier: str = "int4", slots: int = 64) -> list[Claimed]:
    return (await queue.claim(f"w-{tier}", "smollm2", tier, claim_plan(queue.settings, "smollm2", tier), slots)).jobs


def ids(jobs: list[Claimed]) -> list[str]:
    return [job.job_id for job in jobs]


def live(store: redis.Redis, settings: Settings, tier: str) -> None:
    store.zadd(f"bl:live:smollm2:{tier}", {f"w-{tier}": 9e15})
    assert tier in settings.model("smollm2").ladder


async def test_the_jobs_of_a_paused_tenant_wait_while_others_are_served_around_them(queue: JobQueue) -> None:
    owner = {}
    for tenant in ("acme", "globex", "default") * 5:
        owner[await submit(queue, tenant=tenant)] = tenant
    await pause(queue, PauseOrder(tenant="acme", reason="too loud"), "alice")

    served = Counter(owner[job_id] for job_id in ids(await claim(queue, slots=4)) + ids(await claim(queue)))
    nothing = await claim(queue)
    await pause(queue, PauseOrder(tenant="default"), "alice")
    late = await submit(queue)
    await resume(queue, ResumeOrder(tenant="acme"), "bob")
    after = ids(await claim(queue))

    assert served == {"globex": 5, "default": 5}
    assert nothing == []
    assert {owner[job_id] for job_id in after} == {"acme"}
    assert len(after) == 5
    await resume(queue, ResumeOrder(tenant="default"), "bob")
    assert ids(await claim(queue)) == [late]


@pytest.mark.parametrize("paused", Lane)
async def test_the_jobs_of_a_paused_lane_wait_and_reach_no_higher_tier(
    queue: JobQueue, store: redis.Redis, paused: str
) -> None:
    jobs = {lane: await submit(queue, lane=lane) for lane in Lane}  # int4 has no worker: all of it would escalate
    await pause(queue, PauseOrder(lane=paused), "alice")

    above, own = await claim(queue, "int8"), await claim(queue, "int4")

    assert set(ids(above) + ids(own)) == set(jobs.values()) - {jobs[Lane(paused)]}
    assert not store.exists("bl:wake:smollm2:int4") or await claim(queue) == []  # it wakes nobody for ever
    await resume(queue, ResumeOrder(lane=paused), "alice")
    assert ids(await claim(queue)) == [jobs[Lane(paused)]]


async def test_a_paused_tier_claims_nothing_and_its_jobs_escalate_as_if_it_had_no_worker(
    queue: JobQueue, store: redis.Redis
) -> None:
    live(store, queue.settings, "int4")
    job = await submit(queue)
    assert await claim(queue, "int8") == []  # below the marks, a live tier keeps its jobs

    await pause(queue, PauseOrder(tier="int4"), "alice")

    assert await claim(queue, "int4") == []
    assert (await queue.depths("smollm2")).serving["int4"] == 0
    assert ids(await claim(queue, "int8")) == [job]


async def test_a_paused_model_and_everything_give_nothing_to_anybody(queue: JobQueue) -> None:
    job = await submit(queue)
    for order in (PauseOrder(model="smollm2"), PauseOrder(everything=True)):
        await pause(queue, order, "alice")
        assert [await claim(queue, tier) for tier in ("int4", "int8", "fp8")] == [[], [], []]
        shown = (await list_pauses(queue)).data
        assert [(entry.operator, entry.until) for entry in shown] == [("alice", None)]
        await resume(queue, ResumeOrder(scope=shown[0].scope), "alice")
    assert ids(await claim(queue)) == [job]


async def test_a_pause_for_some_time_ends_by_itself(queue: JobQueue, store: redis.Redis) -> None:
    job = await submit(queue, tenant="acme")
    for scope in ({"tenant": "acme"}, {"everything": True}):
        await pause(queue, PauseOrder(for_s=0.05, **scope), "alice")
        assert await claim(queue) == []
        end_ms = sum(n * f for n, f in zip(store.time(), (1000, 0.001), strict=True)) + 60
        while sum(n * f for n, f in zip(store.time(), (1000, 0.001), strict=True)) < end_ms:
            pass
        assert (await list_pauses(queue)).data == []
    assert ids(await claim(queue)) == [job]


async def test_a_pause_of_an_instant_ends_and_one_of_what_is_not_there_is_refused(
    queue: JobQueue, store: redis.Redis
) -> None:
    await pause(queue, PauseOrder(tier="int4", for_s=0.0001), "alice")
    assert 0 < (await read_audit(queue, 1)).data[0].result["until"] <= int(store.time()[0]) * 1000 + 1001
    for scope in ("tier:smollm2:int5", "tier:other:int4", "model:other", "lane:smollm2:fast"):
        with pytest.raises(RequestError, match=r"int5|other|fast"):
            await pause(queue, PauseOrder(scope=scope), "alice")
        await resume(queue, ResumeOrder(scope=scope), "alice")  # it may have been there
    for scope in ("tier:smollm2:int4", "model:smollm2", "lane:smollm2:batch", "tenant:a:b", "all"):
        assert (await pause(queue, PauseOrder(scope=scope), "alice")).paused == scope


async def test_what_others_wrote_into_the_key_of_pauses_pauses_what_it_names_or_nothing(
    queue: JobQueue, store: redis.Redis
) -> None:
    job = await submit(queue, tenant="acme")
    store.hset("bl:paused", mapping={"tenant:acme": b"\xff\x00", "nonsense": "{"})

    assert await claim(queue) == []
    assert {(entry.scope, entry.operator) for entry in (await list_pauses(queue)).data} == {
        ("tenant:acme", ""),
        ("nonsense", ""),
    }
    store.delete("bl:paused")
    store.set("bl:paused", "a text")
    assert ids(await claim(queue)) == [job]
    await pause(queue, PauseOrder(tenant="acme"), "alice")  # it replaces the key
    assert [entry.scope for entry in (await list_pauses(queue)).data] == ["tenant:acme"]


async def test_pauses_are_bounded_and_each_order_stands_in_the_log(queue: JobQueue) -> None:
    for number in range(MAX_PAUSES):
        await pause(queue, PauseOrder(tenant=f"t{number}"), "alice")
    with pytest.raises(OrderRefusedError, match="100 scopes are paused"):
        await pause(queue, PauseOrder(tenant="more"), "alice")
    await pause(queue, PauseOrder(tenant="t3", reason="again"), "bob")
    await resume(queue, ResumeOrder(tenant="t3", reason="done"), "bob")
    await resume(queue, ResumeOrder(tenant="t3"), "bob")

    log = await read_audit(queue, 3)
    rest = await read_audit(queue, 1000, log.next_cursor)

    assert [(entry.operator, entry.what, entry.on, entry.reason, entry.result) for entry in log.data] == [
        ("bob", "resume", "tenant:t3", "", {"was_paused": False}),
        ("bob", "resume", "tenant:t3", "done", {"was_paused": True}),
        ("bob", "pause", "tenant:t3", "again", {"until": 0}),
    ]
    assert (len(rest.data), rest.has_more) == (MAX_PAUSES, False)
    assert all(older.at <= newer.at for newer, older in itertools.pairwise(rest.data))


@pytest.mark.parametrize("tenant", ["default", "acme"])
async def test_jobs_that_only_some_tiers_may_serve_are_found_again_after_their_tenant_s_pause(
    queue: JobQueue, tenant: str
) -> None:
    job = await submit(queue, tenant=tenant, limit=":only-int4,fp8")
    await pause(queue, PauseOrder(tenant=tenant), "alice")
    assert await claim(queue) == []

    await resume(queue, ResumeOrder(tenant=tenant), "bob")

    assert ids(await claim(queue)) == [job]
