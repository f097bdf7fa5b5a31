"""A job is not begun once its deadline has passed, wherever in a worker it waited until then, and costs no attempt."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis

from bitladder.client import Client
from bitladder.contract import Outcome, State
from bitladder.producer import Producer
from bitladder.queue.job_queue import JobQueue
from bitladder.settings.sections import Settings
from tests.conftest import Stack, make_settings, wait_until
from tests.workers.test_pump import running, until
from workers.engines.base import Answer, OnChunk
from workers.engines.echo import EchoEngine
from workers.lease import LeaseKeeper

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
LONG = BODY | {"max_tokens": 200}  # a second of work
EXPIRED = (State.EXPIRED, "the deadline passed while the job waited", 0)


def shown(outcome: Outcome | None) -> tuple[State, str | None, int] | None:
    return (outcome.state, outcome.error, outcome.attempts) if outcome else None


def now_ms(store: redis.Redis) -> int:
    seconds, micros = store.time()
    return int(seconds * 1000 + micros // 1000)


def waits(store: redis.Redis) -> bool:
    return bool(store.info("clients")["blocked_clients"]) and store.llen("bl:wake:smollm2:int4") == 0


def test_a_worker_that_was_stopped_while_it_waited_does_not_begin_what_is_over(
    make_stack: Callable[..., Stack], store: redis.Redis, redis_url: str
) -> None:
    stack = make_stack()
    stack.intake()
    worker = stack.worker("int4")
    with Producer(make_settings(redis_url)) as producer:
        producer.run(BODY)  # so that it is connected
        wait_until(lambda: waits(store), "the worker waits for a push")

        worker.send_signal(signal.SIGSTOP)
        job_id = producer.submit(BODY, headers={"X-Deadline-Ms": "150"})
        wait_until(lambda: store.scard("bl:unbegun:" + held_by(store)) == 1, "Redis has handed it over")
        over_ms = now_ms(store) + 500
        wait_until(lambda: now_ms(store) > over_ms, "its deadline has passed")
        worker.send_signal(signal.SIGCONT)
        outcome = producer.wait(str(job_id), timeout_s=10)
    with Client(stack.url) as client:
        seen = client.result(str(job_id))

    assert shown(outcome) == EXPIRED
    assert (seen["status"], seen["attempts"]) == ("expired", 0)


def held_by(store: redis.Redis) -> str:
    names: list[Any] = store.keys("bl:inflight:*")
    return str(names[0].decode()).removeprefix("bl:inflight:") if names else ""


def isolate(store: redis.Redis, *ids: object) -> None:
    """Write into waiting jobs that two engines were lost with them: each runs alone."""
    for job_id in ids:
        store.hset(f"rq:job:{job_id}", "crash_count", 2)


async def test_an_isolated_job_that_waits_expires_there(settings: Settings, store: redis.Redis) -> None:
    with Producer(settings) as producer:
        first = producer.submit(LONG)
        late = producer.submit(BODY, headers={"X-Deadline-Ms": "400"})
        isolate(store, first, late)
        async with running(settings) as pump:
            await until(lambda: producer.outcome(str(late)) is not None)
            is_first_over = producer.outcome(str(first)) is not None
            labels = {"model": "smollm2", "tier": "int4", "state": "expired"}
            await until(lambda: pump.metrics.registry.get_sample_value("bitladder_jobs_ended_total", labels) == 1)
            await until(lambda: producer.outcome(str(first)) is not None)
        outcomes = [producer.outcome(str(job_id)) for job_id in (first, late)]

    assert not is_first_over
    assert shown(outcomes[0]) == (State.FINISHED, None, 1)
    assert shown(outcomes[1]) == EXPIRED
    assert store.keys("bl:inflight:*") + store.keys("rq:wip:*") == []


async def test_an_isolated_job_that_is_cancelled_while_it_waits_costs_no_attempt(
    settings: Settings, store: redis.Redis
) -> None:
    with Producer(settings) as producer:
        first, cancelled = producer.submit(LONG), producer.submit(BODY)
        isolate(store, first, cancelled)
        async with running(settings) as pump:
            await until(lambda: store.scard(f"bl:inflight:{pump.identity.name}") == 2)
            await pump.queue.cancel(str(cancelled))
            await until(lambda: producer.outcome(str(cancelled)) is not None)
            view = await JobQueue(pump.queue.client, settings).view(str(cancelled))

    assert view is not None
    assert view.outcome is not None
    assert (view.state, view.attempts, view.outcome.attempts) == (State.CANCELLED, 0, 0)


class CountingEngine(EchoEngine):
    """Counts what it is asked."""

    asked = 0

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        self.asked += 1
        return await super().generate(endpoint, body, on_chunk)


async def test_a_job_that_waits_behind_a_busy_engine_costs_no_attempt_when_its_worker_is_lost(
    settings: Settings, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.handling.settle.BUSY_PAUSE_S", 1.5)
    other = LeaseKeeper(settings, "smollm2", "int8", "other", held=dict, drop=lambda lost, cancelled: None)
    engine = CountingEngine(settings.echo)
    with Producer(settings) as producer:
        job_id = producer.submit(BODY | {"prompt": "echo:busy"})
        async with running(settings, engine) as pump:
            await until(lambda: engine.asked == 1)
            await until(lambda: store.smembers(f"bl:unbegun:{pump.identity.name}") == {str(job_id).encode()})
            store.zadd("bl:workers", {pump.identity.name: 1})
            await asyncio.to_thread(other.reap)
            await until(lambda: engine.asked == 2)  # it has claimed it again
            view = await pump.queue.view(str(job_id))

    assert view is not None
    assert view.attempts == 1


async def test_a_worker_says_of_which_jobs_its_engine_has_begun_and_which_wait(
    settings: Settings, store: redis.Redis
) -> None:
    with Producer(settings) as producer:
        first, second = producer.submit(LONG), producer.submit(LONG)
        isolate(store, first, second)
        async with running(settings) as pump:
            key = f"bl:unbegun:{pump.identity.name}"
            await until(lambda: store.smembers(key) == {str(second).encode()})
            await until(lambda: producer.outcome(str(first)) is not None)
            await until(lambda: store.exists(key) == 0)
            await asyncio.to_thread(pump.leases.renew)
            runs = store.smembers(f"bl:inflight:{pump.identity.name}")

    assert runs == {str(second).encode()}
