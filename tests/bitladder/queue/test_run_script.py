"""bitladder/queue/run_script.py: a server that has lost its scripts runs each call once, whichever way it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
import redis
import redis.asyncio
from redis.exceptions import NoPermissionError

from bitladder.contract import Chunk, Claimed, Outcome, State
from bitladder.producer import Producer
from bitladder.queue.calls.end import Doubtful, Finished, RequeueReason
from bitladder.queue.calls.read import depths_call
from bitladder.queue.calls.upkeep import rate_call
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.load_sample import take_sample
from bitladder.queue.run_script import run, run_sync
from bitladder.queue.sending.exchange import call_each, exchange
from bitladder.queue.server.connection import connect, connect_sync
from bitladder.settings.sections import Settings
from workers.lease import LeaseKeeper

DONE = Outcome(state=State.FINISHED, status=200)
BROKEN = Outcome(state=State.FAILED, status=500, code="engine_fault", error="broke")


@pytest_asyncio.fixture
async def client(settings: Settings) -> AsyncIterator[redis.asyncio.Redis]:
    client = connect(settings.redis)
    yield client
    await client.aclose()


async def test_an_asyncio_call_runs_once(client: redis.asyncio.Redis, store: redis.Redis) -> None:
    waits_ms = []
    for _ in range(2):
        store.script_flush()
        waits_ms.append((await run(client, rate_call("acme", 1)))[0])

    assert waits_ms == [0, pytest.approx(60_000, abs=5_000)]


def test_a_blocking_call_runs_once(settings: Settings, store: redis.Redis) -> None:
    with connect_sync(settings.redis) as client:
        waits_ms = []
        for _ in range(2):
            store.script_flush()
            waits_ms.append(run_sync(client, rate_call("acme", 1))[0])

    assert waits_ms == [0, pytest.approx(60_000, abs=5_000)]


async def test_of_a_bundle_only_those_run_again_that_have_not_run(
    settings: Settings, client: redis.asyncio.Redis, store: redis.Redis
) -> None:
    store.script_flush()
    await run(client, rate_call("other", 1))  # this script is known again
    rate, depths = rate_call("acme", 1), depths_call(settings, "smollm2")

    first, queues, second = await call_each(partial(exchange, client.connection_pool), [rate, depths, rate])

    assert (first[0], second[0]) == (0, pytest.approx(60_000, abs=5_000))
    assert len(queues) == 6


async def test_a_server_that_takes_no_script_says_so(client: redis.asyncio.Redis, store: redis.Redis) -> None:
    store.acl_setuser("nobody", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-script"])
    store.script_flush()
    try:
        await client.execute_command("AUTH", "nobody", "x")  # type: ignore[no-untyped-call]  # redis-py
        with pytest.raises(NoPermissionError, match="script"):
            await run(client, rate_call("acme", 1))
    finally:
        store.acl_deluser("nobody")


async def test_every_step_of_a_job_survives_the_loss_of_the_scripts(settings: Settings, store: redis.Redis) -> None:
    queue = JobQueue(connect(settings.redis), settings)
    plan = claim_plan(settings, "smollm2", "int4")

    async def claim() -> Claimed:
        (job,) = (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs
        return job

    with Producer(settings) as producer:
        store.script_flush()
        job_id = producer.submit({"model": "smollm2", "prompt": "x"})
    store.script_flush()
    assert not (await queue.depths("smollm2")).live["int4"]
    store.script_flush()
    assert (await take_sample(queue.client, settings)).models["smollm2"].live == {"int4": 0, "int8": 0, "fp8": 0}
    store.script_flush()
    claimed = await claim()
    store.script_flush()
    await queue.emit("me", [(job_id, Chunk(fence=claimed.fence, number=1, data=b"x"))])
    store.script_flush()
    assert [chunk.data for chunk in await queue.chunks(job_id, claimed.fence, 0)] == [b"x"]
    store.script_flush()
    assert await queue.requeue("me", claimed, claimed.queue, reason=RequeueReason.UNCHARGED, last=BROKEN) == "returned"
    claimed = await claim()
    store.script_flush()
    assert await queue.finish("me", [Finished(job=claimed, outcome=BROKEN, is_dead_letter=True)]) == [True]
    store.script_flush()
    assert await queue.look([job_id]) == [BROKEN]
    store.script_flush()
    dead_letters = DeadLetters(queue)
    assert await dead_letters.release(await dead_letters.heads()) == [job_id]
    store.script_flush()
    assert await queue.withdraw([Doubtful(job_id=job_id, queue=claimed.queue, tenant="")]) == [True]
    await queue.aclose()


def test_a_worker_renews_reaps_and_leaves_on_a_server_that_lost_its_scripts(
    settings: Settings, store: redis.Redis
) -> None:
    keeper = LeaseKeeper(settings, "smollm2", "int4", "me", held=dict, drop=lambda lost, cancelled: None)
    store.zadd("bl:workers", {"lost": 1})

    store.script_flush()
    keeper.renew()
    assert set(store.zrange("bl:workers", 0, -1)) == {b"lost", b"me"}
    store.script_flush()
    keeper.reap()
    assert store.zrange("bl:workers", 0, -1) == [b"me"]
    store.script_flush()
    keeper.stop()
    assert store.zrange("bl:workers", 0, -1) == []
