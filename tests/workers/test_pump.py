"""workers/pump.py: one worker on a real Valkey, its engine in the same process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from bitladder.logs.setup import add_process_fields
from bitladder.process import supervision as background
from bitladder.producer import Producer
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from tests.scripted import Scripted, reply, scripted
from workers.engines.base import Engine
from workers.engines.echo import EchoEngine
from workers.engines.http import HttpEngine
from workers.handling import chunks
from workers.lease import LeaseKeeper
from workers.pump import Pump

LABELS = {"model": "smollm2", "tier": "int4"}
# A second and a half of work: long enough to be lost and claimed again while it runs.
BODY = {"model": "smollm2", "prompt": "aaaa", "max_tokens": 30}


async def until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  (of another process)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(settings: Settings, engine: Engine | None = None) -> AsyncIterator[Pump]:
    pump = Pump(settings, "smollm2", "int4", engine or EchoEngine(settings.echo))
    task = asyncio.create_task(pump.run())
    try:
        yield pump
    finally:
        pump.drain()
        await task


async def test_a_job_that_its_worker_loses_and_claims_again_is_run_and_ended_once(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__lease_s=1, echo__tokens_per_s=20)
    other = LeaseKeeper(settings, "smollm2", "int8", "other", held=dict, drop=lambda lost, cancelled: None)
    with Producer(settings) as producer:
        async with running(settings) as pump:
            job_id = producer.submit(BODY)
            await until(lambda: store.hexists(f"rq:job:{job_id}", "fence"))
            first = store.hget(f"rq:job:{job_id}", "fence")
            await asyncio.sleep(0.7)  # so that the first execution ends well before the second
            store.zadd("bl:workers", {pump.identity.name: 1})
            await asyncio.to_thread(other.reap)
            await until(lambda: store.hget(f"rq:job:{job_id}", "fence") != first)
            second = store.hget(f"rq:job:{job_id}", "fence")
            await asyncio.sleep(1)  # the first execution would have ended by now
            held = pump.metrics.registry.get_sample_value("bitladder_worker_in_flight", LABELS)
            await until(lambda: producer.outcome(job_id) is not None)

        outcome = producer.outcome(job_id)

    assert held == 1
    assert outcome
    assert (outcome.state, outcome.attempts) == ("finished", 2)
    assert store.hget(f"rq:job:{job_id}", "fence") == second
    assert store.keys("bl:inflight:*") == []


ANSWER = reply({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]})


def busy(wait: str) -> bytes:
    return reply({"error": {"message": "Rate limit reached for m", "type": "tokens"}}, 429, retry_after=wait)


@contextlib.asynccontextmanager
async def upstream(settings: Settings) -> AsyncIterator[Scripted]:
    async with scripted() as script:
        script.say(ANSWER)
        async with running(settings, HttpEngine(script.url, "smollm2")) as pump:
            await until(lambda: pump.leases.is_ready)  # it has answered the warm-up
            script.asked.clear()
            yield script


async def test_a_busy_upstream_is_left_alone_as_it_says_once_for_all_jobs(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url)
    slots = settings.model("smollm2").tier("int4").slots
    with Producer(settings) as producer:
        async with upstream(settings) as script:
            script.say(busy("3"))
            jobs = [producer.submit(BODY) for _ in range(20)]
            await until(lambda: bool(script.asked))
            asked_s = script.times_s[-1]
            await asyncio.sleep(1)
            in_pause = len(script.asked)
            script.say(ANSWER)
            await until(lambda: all(producer.outcome(job) for job in jobs))
            gap_s = script.times_s[in_pause] - asked_s

        outcomes = [producer.outcome(job) for job in jobs]

    assert in_pause <= slots
    assert gap_s > 2.8
    assert {(outcome.state, outcome.attempts) for outcome in outcomes if outcome} == {("finished", 1)}


async def test_a_job_whose_time_is_over_says_what_kept_it_waiting(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__max_wait_s=1)
    with Producer(settings) as producer:
        async with upstream(settings) as script:
            script.say(busy("1.5"))
            job_id = producer.submit(BODY)
            await until(lambda: producer.outcome(job_id) is not None)
        outcome = producer.outcome(job_id)

    assert outcome
    assert (outcome.state, outcome.code) == ("expired", "deadline_exceeded")
    assert outcome.error == (
        "the deadline passed while the job waited; it had come back: "
        "engine_busy: the engine is busy (429: Rate limit reached for m)"
    )


async def test_a_quota_that_is_used_up_is_a_fault_and_not_waited_for(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url)
    with Producer(settings) as producer:
        async with upstream(settings) as script:
            error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
            script.say(reply({"error": error}, 429, retry_after="30"))
            job_id = producer.submit(BODY)
            await until(lambda: producer.outcome(job_id) is not None, 5)
        outcome = producer.outcome(job_id)

    assert outcome
    assert (outcome.code, outcome.attempts) == ("engine_fault", settings.queue.max_attempts)
    assert "quota is used up" in (outcome.error or "")


async def test_a_worker_that_lacks_a_background_task_is_not_ready_until_it_runs_again(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SETTLED_S", 0.5)
    settings, ends = make_settings(redis_url), [asyncio.Event(), asyncio.Event()]

    async def work() -> None:
        await ends[0].wait()
        if not ends[1].is_set():
            raise ValueError("a defect")
        await asyncio.Event().wait()

    with Producer(settings) as producer:
        async with running(settings) as pump:
            pump.background.start("something", work)
            await until(lambda: store.zcard("bl:live:smollm2:int4") == 1)

            ends[0].set()
            await until(lambda: store.zcard("bl:live:smollm2:int4") == 0)
            await asyncio.sleep(settings.worker.block_s + 0.2)  # the claim that was under way has ended
            job_id = producer.submit(BODY)
            await asyncio.sleep(settings.worker.block_s + 0.2)
            early = producer.outcome(job_id)
            ends[1].set()
            await until(lambda: producer.outcome(job_id) is not None, 20)

    assert early is None


async def test_a_stream_that_redis_has_no_room_for_ends_with_its_outcome_after_a_while(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_MEMORY_WAIT_S", 0.5)
    settings = make_settings(redis_url, echo__tokens_per_s=20)
    with Producer(settings) as producer:
        async with running(settings) as pump:
            job_id = producer.submit(BODY | {"stream": True})
            await until(lambda: store.xlen(f"bl:stream:{job_id}") > 5)
            store.config_set("maxmemory", 1)
            try:
                await until(lambda: producer.outcome(job_id) is not None)
            finally:
                store.config_set("maxmemory", 0)
            given_up = pump.metrics.registry.get_sample_value("bitladder_chunks_unstored_total", LABELS)
        outcome = producer.outcome(job_id)

    stored = store.xlen(f"bl:stream:{job_id}")
    assert outcome
    fence: Any = store.hget(f"rq:job:{job_id}", "fence")
    assert (outcome.state, outcome.chunks, outcome.fence) == ("finished", 30, int(fence))
    assert outcome.usage.completion_tokens == 30
    assert 5 < stored < 30
    assert given_up == 30 - stored


async def test_every_line_of_a_worker_s_log_names_its_model_tier_and_name(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url, queue__lease_s=1, queue__max_attempts=1)
    with capture_logs(processors=[add_process_fields]) as lines, Producer(settings) as producer:
        async with running(settings) as pump:
            await until(lambda: pump.leases.is_ready)
            store.zadd("bl:workers", {"lost": 1})  # for the lease thread to reap
            job_id = producer.submit(BODY | {"prompt": "echo:fault"})
            await until(lambda: producer.outcome(job_id) is not None)
            await until(lambda: any(line["event"] == "worker reaped" for line in lines))

    assert {"worker ready", "worker reaped", "job requeued", "drained"} <= {line["event"] for line in lines}
    fields = {"model": "smollm2", "tier": "int4", "worker": pump.identity.name}
    assert [line for line in lines if not fields.items() <= line.items()] == []
