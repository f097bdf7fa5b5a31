"""What a worker's jobs cost: in their outcomes, and in the sums that the worker keeps in Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import redis

from bitladder.contract import Claimed
from bitladder.producer import Producer
from bitladder.queue.calls.spending import OTHERS, Spent, read_day, spend_call
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from tests.scripted import reply, scripted
from tests.workers.test_pump import ANSWER, BODY, running, until
from workers.engines.echo import EchoEngine
from workers.engines.http import HttpEngine
from workers.handling.cost_ledger import CostLedger
from workers.identity import Identity
from workers.metrics.worker_metrics import WorkerMetrics
from workers.pump import Pump

INT4_PER_HOUR = 0.7
INT4 = ("smollm2", "int4", "")
DEFAULT = ("smollm2", "int4", "default")


def sums(store: redis.Redis) -> dict[tuple[str, str, str], dict[str, float]]:
    (key,) = store.keys("bl:costs:*") or [b""]
    return read_day(store.hgetall(key)) if key else {}  # type: ignore[arg-type]  # it decodes nothing


def alone_cost(pump: Pump) -> float:
    """Return what the jobs of a worker cost that ran one after the other."""
    return pump._ledger.engine.sum_s * INT4_PER_HOUR / 3600


async def test_jobs_that_run_together_cost_as_much_as_their_engine_was_busy_and_that_is_what_redis_sums_up(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, echo__tokens_per_s=100)
    with Producer(settings) as producer:
        jobs = [producer.submit(BODY | {"max_tokens": tokens}) for tokens in (5, 20, 40)]
        async with running(settings):
            await until(lambda: all(producer.outcome(job) for job in jobs))
        outcomes = [outcome for job in jobs if (outcome := producer.outcome(job))]

    busy = max(outcome.run_ms for outcome in outcomes) / 3_600_000 * INT4_PER_HOUR  # they began together
    costs = [outcome.cost or 0 for outcome in outcomes]
    row, rent = sums(store)[DEFAULT], sums(store)[INT4]

    assert sum(costs) == pytest.approx(busy, rel=0.05)
    assert costs == sorted(costs)
    assert row["cost"] == pytest.approx(sum(costs), rel=1e-4)
    assert (row["jobs"], row["tokens"]) == (3, 65)
    assert rent["rent"] == pytest.approx(rent["seconds"] * INT4_PER_HOUR / 3600)
    assert rent["rent"] > row["cost"]


async def test_what_a_failed_execution_cost_belongs_to_its_job_too(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url)
    with Producer(settings) as producer:
        async with scripted() as script:
            script.say(ANSWER)
            async with running(settings, HttpEngine(script.url, "smollm2")) as pump:
                await until(lambda: pump.leases.is_ready)
                script.say(reply({"error": {"message": "x"}}, 500))
                job_id = producer.submit(BODY)
                await until(lambda: producer.outcome(job_id) is not None)
                alone = alone_cost(pump)
        outcome = producer.outcome(job_id)

    assert outcome
    assert outcome.attempts == 3
    assert outcome.cost == pytest.approx(alone, rel=0.01)
    assert sums(store)[DEFAULT].get("jobs") is None


async def test_a_drained_execution_is_in_the_sums_and_in_what_its_job_costs_at_the_end(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, echo__tokens_per_s=20, worker__drain_grace_s=0)
    with Producer(settings) as producer:
        async with running(settings) as pump:
            job_id = producer.submit(BODY)
            await until(lambda: pump._ledger.engine.running == 1)
            await asyncio.sleep(0.3)
        before = sums(store)[DEFAULT]["cost"]
        async with running(settings):
            await until(lambda: producer.outcome(job_id) is not None)
        outcome = producer.outcome(job_id)

    assert outcome
    assert before >= 0.3 * INT4_PER_HOUR / 3600
    assert outcome.cost == pytest.approx(sums(store)[DEFAULT]["cost"], rel=0.01)
    assert outcome.attempts == 1


@contextlib.asynccontextmanager
async def open_queue(settings: Settings | LiveSettings) -> AsyncIterator[JobQueue]:
    client = connect(LiveSettings.of(settings).current.redis)
    yield JobQueue(client, settings)
    await client.aclose()


async def test_a_call_whose_answer_was_lost_counts_once_and_garbage_begins_anew(
    settings: Settings, store: redis.Redis
) -> None:
    store.hset("rq:worker:w", "birth", "now")
    spent = Spent(number=1, seconds=2, rent=0.5, overflow=0.25)
    spent.add_tenant("acme", 0.25, 1, 10)
    async with open_queue(settings) as queue:
        first = await queue.run(spend_call("w", "smollm2", "int8", spent))
        again = await queue.run(spend_call("w", "smollm2", "int8", spent))
        (key,) = store.keys("bl:costs:*")
        store.hset(key, "smollm2|int8|acme|cost", "nonsense")
        await queue.run(spend_call("w", "smollm2", "int8", Spent(number=2, tenants=spent.tenants)))

    assert (float(first), float(again)) == (0.25, 0.25)
    assert sums(store)["smollm2", "int8", ""] == {"rent": 0.5, "seconds": 2}
    assert sums(store)["smollm2", "int8", "acme"] == {"cost": 0.25, "jobs": 2, "tokens": 20}
    assert 89 * 86_400 < store.ttl(key) <= 90 * 86_400


@pytest.mark.parametrize("odd", ["nonsense", "inf", "nan"])
async def test_a_garbled_sum_of_overflow_keeps_no_worker_from_sending_its_sums(
    settings: Settings, store: redis.Redis, odd: str
) -> None:
    async with open_queue(settings) as queue:
        ledger = CostLedger(queue, Identity("smollm2", "int8", "w"), WorkerMetrics("smollm2", "int8"))
        now = datetime.now(UTC)
        store.hset(f"bl:costs:{now:%Y-%m-%d}", f"smollm2|||overflow.{now:%H}", odd)
        await ledger.send()
        await queue.run(spend_call("w", "smollm2", "int8", Spent(number=3, overflow=0.25)))
        await ledger.send()

    assert sums(store)["smollm2", "", ""] == {f"overflow.{now:%H}": 0.25}


async def test_what_is_served_below_its_floor_is_no_overflow(settings: Settings) -> None:
    queue_name, spent = "smollm2:int8:normal:only-int4,int8,fp8", {}
    job = Claimed(
        job_id="j", data=b"", queue=queue_name, attempt=1, fence=1, enqueued_ms=0, deadline_ms=None, claimed_ms=0
    )
    async with open_queue(settings) as queue:
        for tier in ("int4", "int8", "fp8"):
            ledger = CostLedger(queue, Identity("smollm2", tier, "w"), WorkerMetrics("smollm2", tier))
            ledger.charge(job, ledger.engine.begin(), None)
            spent[tier] = ledger._spent.overflow

    assert [spent[tier] > 0 for tier in spent] == [False, False, True]


async def test_tenants_beyond_the_bound_share_a_row(
    settings: Settings, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitladder.queue.calls.spending.MAX_ROWS", 4)
    async with open_queue(settings) as queue:
        for number in range(10):
            spent = Spent(number=number)
            spent.add_tenant(f"t{number}", 1, 1, 1)
            spent.add_tenant("a|b", 1, 1, 1)
            await queue.run(spend_call("w", "smollm2", "int8", spent))

    rows = sums(store)
    assert rows["smollm2", "int8", OTHERS]["cost"] == 17
    assert len(rows) == 4


async def test_where_no_tier_has_a_price_nothing_is_written(redis_url: str, store: redis.Redis) -> None:
    settings = make_settings(redis_url)
    tiers = tuple(tier.model_copy(update={"price_per_hour": 0.0}) for tier in settings.model("smollm2").tiers)
    model = settings.model("smollm2").model_copy(update={"tiers": tiers})
    with Producer(settings) as producer:
        async with running(settings.model_copy(update={"models": {"smollm2": model}})):
            job_id = producer.submit(BODY | {"max_tokens": 1})
            await until(lambda: producer.outcome(job_id) is not None)

    assert store.keys("bl:costs:*") + store.keys("bl:pace:*") == []


async def test_overflow_waits_once_it_has_cost_what_it_may_in_an_hour(redis_url: str, store: redis.Redis) -> None:
    limit = 0.05 / 3600  # of int8's price of 1 an hour: 50 ms of its time
    settings = make_settings(redis_url, echo__tokens_per_s=100)
    model = settings.model("smollm2").model_copy(update={"max_overflow_cost_per_hour": limit})
    settings = settings.model_copy(update={"models": {"smollm2": model}})
    with Producer(settings) as producer:
        pump = Pump(settings, "smollm2", "int8", EchoEngine(settings.echo))
        task = asyncio.create_task(pump.run())
        first = producer.submit(BODY | {"max_tokens": 20})  # int4 has no worker
        await until(lambda: producer.outcome(first) is not None)
        at_int8 = {"X-Min-Tier": "int8"}
        between = producer.submit(BODY, headers=at_int8)  # taken by the claim that waits since before
        await until(lambda: producer.outcome(between) is not None)
        second, last = producer.submit(BODY), producer.submit(BODY, headers=at_int8)
        await until(lambda: producer.outcome(last) is not None)
        waiting = producer.outcome(second)
        pump.drain()
        await task

    (key,) = store.keys("bl:costs:*")
    overflow = {field: float(cost) for field, cost in store.hgetall(key).items() if b"|||overflow." in field}
    assert waiting is None
    assert sum(overflow.values()) == pytest.approx(0.2 / 3600, rel=0.3)


async def test_a_shifted_tier_serves_its_jobs_itself_once_overflow_has_cost_what_it_may(
    redis_url: str, store: redis.Redis
) -> None:
    settings = make_settings(redis_url, queue__probe_interval_s=60, queue__shift_hold_s=60)
    model = settings.model("smollm2").model_copy(update={"max_overflow_cost_per_hour": 0.0})
    settings = settings.model_copy(update={"models": {"smollm2": model}})
    far = 9_000_000_000_000
    store.zadd("bl:live:smollm2:int8", {"w": far})
    store.hset("bl:health:smollm2:int4", mapping={"shifted": far - 1, "hold": far})
    with Producer(settings) as producer:
        async with running(settings) as pump:
            await until(lambda: pump._health.limit(4)[1] == 1)  # it has heard of the shift: this is its first probe
            jobs = [producer.submit(BODY | {"max_tokens": 1}) for _ in range(4)]
            await until(lambda: all(producer.outcome(job) for job in jobs))
        outcomes = [outcome for job in jobs if (outcome := producer.outcome(job))]

    assert [outcome.tier for outcome in outcomes] == ["int4"] * 4


async def test_a_changed_price_is_charged_from_then_on_and_no_rent_for_the_time_without_one(
    settings: Settings, store: redis.Redis
) -> None:
    job = Claimed(
        job_id="j",
        data=b"",
        queue="smollm2:int8:normal",
        attempt=1,
        fence=1,
        enqueued_ms=0,
        deadline_ms=None,
        claimed_ms=0,
    )
    prices = [
        {f"models__smollm2__tiers__{tier}__price_per_hour": price for tier in ("int4", "int8", "fp8")}
        for price in (0, 3600)
    ]
    live = LiveSettings(make_settings(settings.redis.url, **prices[0]))
    async with open_queue(live) as queue:
        ledger = CostLedger(queue, Identity("smollm2", "int8", "w"), WorkerMetrics("smollm2", "int8"))
        ledger._counted_s -= 100
        await ledger.send()
        assert (ledger.charge(job, ledger.engine.begin(), None), sums(store)) == (0.0, {})

        live.take(make_settings(settings.redis.url, **prices[1]))

        assert (ledger.charge(job, ledger.engine.begin(), None) or 0) > 0
        await ledger.send()
    assert 0 < sums(store)["smollm2", "int8", ""]["rent"] < 50
