"""Prompts and answers over a slow network to a real Valkey, at shipped time limits: each of any size arrives, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from bitladder.contract import Claimed, Outcome, State, encode_outcome
from bitladder.producer import Producer
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.dead_letters import DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.chaos.proxy import Proxy
from tests.conftest import OwnValkey, Stack, make_settings
from workers.engines.base import Answer, OnChunk
from workers.engines.echo import EchoEngine
from workers.pump import Pump

MB = 1_000_000
LABELS = {"model": "smollm2", "tier": "int4"}


@pytest.fixture
def proxy(own_valkey: OwnValkey) -> Iterator[Proxy]:
    with Proxy(own_valkey.port) as proxy:
        yield proxy


@pytest.fixture
def near(own_valkey: OwnValkey) -> Settings:
    """Return the settings of who is beside Valkey."""
    return make_settings(own_valkey.url)


def behind(proxy: Proxy, slots: int = 256) -> Settings:
    url = f"redis://127.0.0.1:{proxy.port}/0"
    return make_settings(url, models__smollm2__tiers__int4__slots=slots, worker__check_output=False)


class Talkative(EchoEngine):
    """Answers with so many bytes."""

    def __init__(self, settings: Settings, size: int) -> None:
        super().__init__(settings.echo)
        self._body = b'{"choices":[{"index":0,"text":"%s","finish_reason":"stop"}]}' % (b"y" * size)

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        del endpoint, body, on_chunk
        return Answer(status=200, body=self._body)


@contextlib.asynccontextmanager
async def running(settings: Settings, answer_bytes: int) -> AsyncIterator[Pump]:
    pump = Pump(settings, "smollm2", "int4", Talkative(settings, answer_bytes))
    task = asyncio.create_task(pump.run())
    try:
        yield pump
    finally:
        pump.drain()
        await task


def submitted(near: Settings, count: int, size: int) -> list[str]:
    with Producer(near) as producer:
        ids = producer.submit_many({"model": "smollm2", "prompt": "x" * size} for _ in range(count))
    assert all(isinstance(job_id, str) for job_id in ids)
    return [str(job_id) for job_id in ids]


async def ends(near: Settings, ids: list[str], timeout_s: float) -> list[tuple[State, int]]:
    """Return how the jobs ended, and with how many attempts."""
    client = connect(near.redis)
    queue = JobQueue(client, near)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                views = [await queue.view(job_id) for job_id in ids]
                if all(view and view.state.is_terminal for view in views):
                    return [(view.state, view.attempts) for view in views if view]
                await asyncio.sleep(0.2)
    finally:
        await client.aclose()


def claims_lost(valkey: OwnValkey, ids: list[str]) -> int:
    """Return how many claims were not counted, because their answers never arrived."""
    with redis.Redis.from_url(valkey.url) as store:
        return sum(store.hget(f"rq:job:{job_id}", "spared") is not None for job_id in ids)


@pytest.mark.parametrize(
    ("rate", "count", "size"),
    [(20 * MB, 100, 301_000), (2 * MB, 8, 900_000), (2 * MB, 1, 6 * MB)],
    ids=["100 of 301 kB at 20 MB/s", "8 of 900 kB at 2 MB/s", "one of 6 MB at 2 MB/s"],
)
async def test_prompts_of_any_size_reach_their_worker_with_the_first_claim(
    own_valkey: OwnValkey, proxy: Proxy, near: Settings, rate: float, count: int, size: int
) -> None:
    ids = submitted(near, count, size)
    proxy.throttle(rate)

    async with running(behind(proxy), answer_bytes=10) as pump:
        its = await ends(near, ids, timeout_s=20)
        fenced = pump.metrics.registry.get_sample_value("bitladder_worker_fenced_total", LABELS)

    assert its == [(State.FINISHED, 1)] * count
    assert claims_lost(own_valkey, ids) == 0
    assert not fenced


@pytest.mark.parametrize(
    ("rate", "count", "size"), [(20 * MB, 64, MB), (2 * MB, 2, 3 * MB)], ids=["64 MB at 20 MB/s", "6 MB at 2 MB/s"]
)
async def test_outcomes_of_any_size_are_stored_once_and_valkey_holds_few_of_them_twice(
    own_valkey: OwnValkey, proxy: Proxy, near: Settings, rate: float, count: int, size: int
) -> None:
    ids = submitted(near, count, 10)
    proxy.throttle(rate)

    async with running(behind(proxy), answer_bytes=size) as pump:
        its = await ends(near, ids, timeout_s=20)
        fenced = pump.metrics.registry.get_sample_value("bitladder_worker_fenced_total", LABELS)
    with redis.Redis.from_url(own_valkey.url) as store:
        memory = store.info("memory")

    assert its == [(State.FINISHED, 1)] * count
    assert not fenced
    assert memory["used_memory_peak"] - memory["used_memory"] < 30 * MB


async def test_an_outcome_that_is_sent_again_is_not_taken_for_a_lost_lease(
    near: Settings, own_valkey: OwnValkey
) -> None:
    (job_id,) = submitted(near, 1, 10)
    client = connect(near.redis)
    queue, plan = JobQueue(client, near), claim_plan(near, "smollm2", "int4")
    (mine,) = (await queue.claim("me", "smollm2", "int4", plan, 1)).jobs
    done = Finished(job=mine, outcome=Outcome(state=State.FINISHED, status=200))
    other = Finished(job=mine, outcome=Outcome(state=State.FAILED, status=500, code="another"))

    answers = [(await queue.finish("me", [one]))[0] for one in (done, done, other)]
    stored = await client.hget(f"rq:job:{job_id}", "outcome")
    await client.aclose()

    assert answers == [True, True, False]
    assert stored == encode_outcome(done.outcome)


def test_large_bodies_at_the_same_time_are_all_accepted(
    proxy: Proxy, own_valkey: OwnValkey, make_stack: Callable[..., Stack]
) -> None:
    stack = make_stack(BITLADDER_REDIS__URL=f"redis://127.0.0.1:{proxy.port}/0")
    stack.intake()
    proxy.throttle(20 * MB)
    body = {"model": "smollm2", "prompt": "x" * 900_000}

    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda _: stack.http.post("/v1/jobs", json=body).status_code, range(40)))

    assert statuses == [202] * 40
    with redis.Redis.from_url(own_valkey.url) as store:
        assert store.llen("rq:queue:smollm2:int4:normal") == 40


def test_a_producer_s_bodies_are_all_queued_over_a_slow_network(proxy: Proxy) -> None:
    proxy.throttle(1.5 * MB)

    assert len(submitted(behind(proxy), 40, 200_000)) == 40


async def test_many_dead_letters_are_read_in_parts_that_valkey_need_not_hold_at_once(
    own_valkey: OwnValkey, proxy: Proxy, near: Settings
) -> None:
    ids = submitted(near, 40, 900_000)
    client, far = connect(near.redis), connect(behind(proxy).redis)
    queue = JobQueue(client, near)
    claimed = await all_claimed(queue)
    end = Outcome(state=State.FAILED, status=500, code="poison")
    await queue.finish("me", [Finished(job=job, outcome=end, is_dead_letter=True) for job in claimed])
    proxy.throttle(20 * MB)

    dead = await DeadLetters(JobQueue(far, near)).jobs()
    memory = await client.info("memory")
    await client.aclose()
    await far.aclose()

    assert {job.job_id for job in dead} == set(ids)
    assert {job.code for job in dead} == {"poison"}
    assert memory["used_memory_peak"] - memory["used_memory"] < 20 * MB


async def all_claimed(queue: JobQueue) -> list[Claimed]:
    plan, claimed = claim_plan(queue.settings, "smollm2", "int4"), []
    while jobs := (await queue.claim("me", "smollm2", "int4", plan, 100)).jobs:
        claimed += jobs
    return claimed
