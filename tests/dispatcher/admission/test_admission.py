"""dispatcher/admission/admission.py and bitladder/queue/load_sample.py on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
import redis
import uuid_utils
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from bitladder.contract import Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.errors import MemoryFullError, OverloadedError, QueueFullError, QueueUnreachableError
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.load_sample import take_sample
from bitladder.queue.server.connection import connect
from bitladder.queue.signing import Signer
from bitladder.queue_name import DEFAULT_TENANT
from bitladder.routing.envelope import LatencyBudget
from bitladder.settings.access import key_hash
from bitladder.settings.sections import Settings
from dispatcher.admission.admission import Admission
from dispatcher.metrics.intake_metrics import AdmissionMetrics
from tests.chaos.proxy import Proxy
from tests.conftest import free_port, make_settings

QUEUE = "smollm2:int4:normal"
SOON, WHENEVER = LatencyBudget(whole_s=0.05), LatencyBudget()


def job(queue: str = QUEUE, key: str = "", tenant: str = DEFAULT_TENANT) -> Submission:
    request = Request(body=msgspec.Raw(b'{"prompt":"x"}'), decision=Decision(floor="int4"), tenant=tenant)
    return Submission(
        job_id=str(uuid_utils.uuid7()), model="smollm2", queue=queue, request=request, idempotency_key=key
    )


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    client = connect(settings.redis)
    yield JobQueue(client, settings)
    await client.aclose()


def admission_of(queue: JobQueue, settings: Settings | None = None) -> Admission:
    return Admission(settings or queue.settings, queue.client, AdmissionMetrics(CollectorRegistry()))


def overload(store: redis.Redis, queue: str = QUEUE) -> None:
    """Give a tier a worker, and 500 jobs that wait for it."""
    for tier in ("int4", "int8", "fp8"):
        store.zadd(f"bl:live:smollm2:{tier}", {"somebody": 9e15})
    store.rpush(f"rq:queue:{queue}", *(f"waiting-{number}" for number in range(500)))


async def learn(admission: Admission, store: redis.Redis, queue: str = QUEUE) -> None:
    """Take two samples, between which 100 jobs of a queue have ended."""
    await admission.refresh()
    await asyncio.sleep(0.05)  # the server's clock has to move
    store.hincrby("bl:served:smollm2", queue, 100)
    await admission.refresh()


@pytest.mark.parametrize("secrets", [[], [SecretStr("outcomes that are signed")]], ids=["plain", "signed"])
async def test_an_execution_that_ends_is_counted_for_the_queue_its_job_waited_in(
    queue: JobQueue, store: redis.Redis, secrets: list[SecretStr]
) -> None:
    queue.signer = Signer(secrets)
    await queue.submit([job(), job(), job(), job(f"{QUEUE}:max-int8"), job()])
    ends = [
        Outcome(state=State.FINISHED, status=200),
        Outcome(state=State.FAILED, status=400),
        Outcome(state=State.EXPIRED, status=504),
        Outcome(state=State.CANCELLED, status=409),
        Outcome(state=State.FINISHED, status=200),
    ]

    plan = claim_plan(queue.settings, "smollm2", "int8")  # a tier above: the lowest one has no worker
    claimed = (await queue.claim("w", "smollm2", "int8", plan, 10)).jobs
    claimed.sort(key=lambda one: one.queue)
    await queue.finish("w", [Finished(job=one, outcome=end) for one, end in zip(claimed, ends, strict=True)])
    seen = (await take_sample(queue.client, queue.settings)).models["smollm2"]

    assert (seen.lists[QUEUE].served, seen.lists[f"{QUEUE}:max-int8"].served) == (2, 1)
    assert 0 < store.ttl("bl:served:smollm2") <= 86_400


async def test_a_garbled_count_keeps_no_job_from_finishing(queue: JobQueue, store: redis.Redis) -> None:
    store.hset("bl:served:smollm2", QUEUE, "\xff")
    await queue.submit([job()])
    claimed = (await queue.claim("w", "smollm2", "int4", claim_plan(queue.settings, "smollm2", "int4"), 1)).jobs

    accepted = await queue.finish("w", [Finished(job=claimed[0], outcome=Outcome(state=State.FINISHED, status=200))])
    seen = await take_sample(queue.client, queue.settings)

    assert accepted == [True]
    assert seen.models["smollm2"].lists[QUEUE].served == 0


async def test_a_sample_loads_a_script_that_the_server_forgot(queue: JobQueue, store: redis.Redis) -> None:
    store.script_flush()

    assert (await take_sample(queue.client, queue.settings)).models["smollm2"].live == {"int4": 0, "int8": 0, "fp8": 0}


async def test_a_job_that_cannot_be_answered_in_time_is_refused_with_the_reason(
    queue: JobQueue, store: redis.Redis
) -> None:
    admission = admission_of(queue)
    overload(store)
    await admission.enter(job(), SOON)  # nothing is known yet
    await learn(admission, store)

    with pytest.raises(OverloadedError, match=r"queue smollm2:int4:normal .* \d+ jobs wait ahead") as refusal:
        await admission.enter(job(), SOON)
    await admission.enter(job(), LatencyBudget(whole_s=3600))
    await admission.enter(job(), WHENEVER)
    await admission.enter(job("smollm2:int8:normal"), SOON)

    assert 1 <= refusal.value.retry_after_s <= 300


async def test_without_admission_only_the_caps_refuse(queue: JobQueue, store: redis.Redis, redis_url: str) -> None:
    admission = admission_of(queue, make_settings(redis_url, intake__admission=False, queue__max_total=502))
    overload(store)
    await learn(admission, store)

    await admission.enter(job(), SOON)
    await admission.enter(job(), WHENEVER)
    with pytest.raises(QueueFullError, match="502 jobs wait for model smollm2; at most 502"):
        await admission.enter(job(), WHENEVER)


async def test_a_burst_between_two_samples_is_not_admitted_blindly(queue: JobQueue, store: redis.Redis) -> None:
    admission = admission_of(queue)
    overload(store)
    await learn(admission, store)
    store.delete(f"rq:queue:{QUEUE}")
    await admission.refresh()

    async def admitted(count: int) -> None:
        for _ in range(count):
            admission.arrived(await admission.enter(job(), LatencyBudget(whole_s=1)))

    await admitted(10)
    with pytest.raises(OverloadedError):
        await admitted(100_000)


async def test_jobs_in_transit_are_not_forgotten_by_a_sample_that_cannot_have_counted_them(
    queue: JobQueue, redis_url: str
) -> None:
    admission = admission_of(queue, make_settings(redis_url, queue__max_total=1))
    await admission.refresh()

    entry = await admission.enter(job(), WHENEVER)
    await admission.refresh()
    with pytest.raises(QueueFullError):
        await admission.enter(job(), WHENEVER)
    admission.arrived(entry)
    await admission.refresh()
    await admission.enter(job(), WHENEVER)


async def test_a_repeat_is_admitted_for_the_answer_of_its_first_job(queue: JobQueue, store: redis.Redis) -> None:
    admission = admission_of(queue)
    await queue.submit([job(key="once")])
    overload(store)
    await learn(admission, store)

    await admission.enter(job(key="once"), SOON)
    with pytest.raises(OverloadedError):
        await admission.enter(job(key="twice"), SOON)


async def test_memory_is_kept_for_the_jobs_that_are_stored(queue: JobQueue, store: redis.Redis) -> None:
    admission = admission_of(queue)
    used = int(store.info("memory")["used_memory"])
    store.config_set("maxmemory", int(used / 0.8))
    try:
        await admission.refresh()
        await admission.enter(job(), WHENEVER)
        store.config_set("maxmemory", int(used / 0.95))
        await admission.refresh()
        with pytest.raises(MemoryFullError, match=r"above 85% no new jobs are taken in"):
            await admission.enter(job(), WHENEVER)
    finally:
        store.config_set("maxmemory", 0)


async def test_a_full_queue_has_room_after_the_time_that_its_rate_needs(queue: JobQueue, store: redis.Redis) -> None:
    admission = admission_of(queue)
    unknown_s = admission.room_after_s(QUEUE, 100_000)
    overload(store)
    store.hincrby("bl:served:smollm2", QUEUE, 100)
    for served in (1000, 2000):
        await admission.refresh()
        await asyncio.sleep(0.05)  # the server's clock has to move
        store.hincrby("bl:served:smollm2", QUEUE, served)
    await admission.refresh()

    small_s, large_s = admission.room_after_s(QUEUE, 1000), admission.room_after_s(QUEUE, 10_000_000)

    assert 5 <= unknown_s <= 7.5
    assert 1 <= small_s <= 1.5
    assert 10 < large_s <= 450


async def test_a_list_that_no_live_worker_may_serve_delays_no_other(queue: JobQueue, store: redis.Redis) -> None:
    admission, stuck = admission_of(queue), f"{QUEUE}:max-int4"
    overload(store)
    await learn(admission, store)
    store.rename(f"rq:queue:{QUEUE}", f"rq:queue:{stuck}")
    store.delete("bl:live:smollm2:int4")
    await admission.refresh()

    await admission.enter(job(), SOON)
    await admission.enter(job(stuck), SOON)  # it may wait for a worker: nothing is known of its time


async def test_a_tenant_with_nothing_waiting_is_not_refused_for_the_backlog_of_another(
    queue: JobQueue, store: redis.Redis
) -> None:
    keys = {"acme": {"hash": key_hash(b"k"), "tenant": "acme"}}
    admission = admission_of(queue, make_settings(queue.settings.redis.url, auth__keys=keys))
    overload(store)
    await learn(admission, store)
    rate = next(iter(load.rate for load in admission._loads.values() if load.rate))
    in_a_few_turns = LatencyBudget(whole_s=60 / rate)

    await admission.enter(job(tenant="acme"), in_a_few_turns)

    with pytest.raises(OverloadedError):
        await admission.enter(job(), in_a_few_turns)  # the backlog is its own tenant's
    store.rpush(f"rq:queue:{QUEUE}:tenant-acme", *(f"own-{number}" for number in range(400)))
    with pytest.raises(OverloadedError):
        await admission.enter(job(tenant="acme"), in_a_few_turns)


async def test_a_stale_sample_refuses_no_job(queue: JobQueue, store: redis.Redis) -> None:
    admission = admission_of(queue)
    overload(store)
    await learn(admission, store)

    await asyncio.sleep(3.1)  # STALE_S

    await admission.enter(job(), SOON)


async def test_jobs_are_admitted_while_redis_is_unreachable() -> None:
    settings = make_settings(f"redis://127.0.0.1:{free_port()}/0")
    client = connect(settings.redis)
    admission = Admission(settings, client, AdmissionMetrics(CollectorRegistry()))

    with pytest.raises(QueueUnreachableError, match="cannot look at the queues"):
        await admission.refresh()
    running = asyncio.create_task(admission.run())
    await asyncio.sleep(0)
    await admission.enter(job(), SOON)
    running.cancel()
    await client.aclose()


async def test_no_job_is_refused_for_the_load_of_a_redis_that_does_not_answer(
    queue: JobQueue, store: redis.Redis, redis_url: str
) -> None:
    with Proxy(int(redis_url.rpartition(":")[2].removesuffix("/0"))) as proxy:
        settings, is_connected = make_settings(f"redis://127.0.0.1:{proxy.port}/0"), True
        client = connect(settings.redis)
        admission = Admission(settings, client, AdmissionMetrics(CollectorRegistry()), lambda: is_connected)
        overload(store)
        store.rpush(f"rq:queue:{QUEUE}", *(f"more-{number}" for number in range(20_000)))
        await learn(admission, store)
        with pytest.raises(OverloadedError):
            await admission.enter(job(), SOON)
        is_connected = False
        await admission.enter(job(), SOON)  # its submission is answered with what is true
        is_connected = True

        running = asyncio.create_task(admission.run())
        await asyncio.sleep(0.1)  # it has begun
        await asyncio.to_thread(proxy.hold)
        start_s = asyncio.get_running_loop().time()
        while True:
            try:
                await admission.enter(job(), SOON)
                break
            except OverloadedError:  # until the last sample is stale
                await asyncio.sleep(0.05)
        blind_s = asyncio.get_running_loop().time() - start_s
        running.cancel()
        await asyncio.to_thread(proxy.heal)
        await client.aclose()

    assert 1 < blind_s < 4.5  # the sample is late, and then stale
