"""What a sample and the history say of a Redis in which real scripts have written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from bitladder.errors import QueueUnreachableError
from bitladder.overview.history import RESOLUTIONS
from bitladder.overview.history_store import HistoryStore
from bitladder.overview.overview_reader import OverviewReader, Sample
from bitladder.overview.shape import Overview
from bitladder.queue.calls.leases import WorkerEntry, extend_call
from bitladder.queue.calls.tier_state import health_call
from bitladder.queue.calls.worker_report import WorkerReport
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.run_script import run_sync
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from tests.conftest import OwnValkey, make_settings

SAMPLE = msgspec.convert(
    json.loads((Path(__file__).parent / "overview_sample.json").read_text(encoding="utf-8")), Overview
)
NOW = 1_800_000_005


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    queue = JobQueue(connect(settings.redis), settings)
    yield queue
    await queue.aclose()


def work(store: redis.Redis, settings: Settings, name: str, tier: str, report: WorkerReport, *, ready: bool) -> None:
    """Have a worker renew its lease and report, as it does."""
    run_sync(store, extend_call(settings, WorkerEntry(name=name, model="smollm2", tier=tier), is_ready=ready))
    run_sync(store, health_call(settings, "smollm2", tier, sound=0, faults=0, report=(name, report)))


async def test_a_sample_adds_up_what_the_workers_of_a_tier_report(
    queue: JobQueue, store: redis.Redis, settings: Settings
) -> None:
    report = WorkerReport(slots=16, jobs=9, jobs_per_s=1.5, tokens_per_s=100.0, overflow_in={"int4": 20}, lost=1)
    work(store, settings, "a", "int8", report, ready=True)
    work(store, settings, "b", "int8", msgspec.structs.replace(report, slots=8, breaker="open"), ready=False)

    overview = (await OverviewReader(queue, lambda *_: 2.5, lambda: "ladder.toml: no").read()).overview

    int8 = overview.models[0].tiers[1]
    assert (int8.workers, int8.workers_not_ready, int8.slots, int8.breaker) == (1, 1, 24, "open")
    assert (int8.jobs_per_s, int8.tokens_per_s, int8.overflow_in, int8.leases_lost) == (3.0, 200.0, {"int4": 40}, 2)
    assert (int8.cost_per_hour, int8.expected_wait_s) == (2.0, 2.5)
    assert overview.redis.version.startswith("Valkey ")
    assert [note.text for note in overview.notes if note.runbook == "release-refused"] == [
        "a change of the settings cannot be taken, what was before stays: ladder.toml: no"
    ]


async def test_what_other_programs_write_into_the_keys_leaves_the_rest_readable(
    queue: JobQueue, store: redis.Redis, settings: Settings
) -> None:
    work(store, settings, "a", "int4", WorkerReport(slots=16), ready=True)
    work(store, settings, "b", "int4", WorkerReport(slots=16), ready=True)
    store.hset("rq:worker:b", "report", '{"slots": -5, "jobs": "many"}')
    for key in ("bl:dead_letters", "bl:history:counts", "bl:history:10", "rq:worker:c", "bl:costs:2020-01-01"):
        store.delete(key)
        store.lpush(key, "x")
    store.zadd("bl:workers", {"c": 4e12})

    store.lpush("bl:history:lease", "x")
    history = HistoryStore(queue, "p")

    sample = await OverviewReader(queue).read()
    await history.write(sample)
    later = msgspec.structs.replace(sample.overview, at=sample.overview.at + 10)
    await history.write(msgspec.structs.replace(sample, overview=later))

    assert store.hlen("bl:history:10") == 1
    assert [await history.takes_lease(), await history.takes_lease()] == [False, True]
    int4 = sample.overview.models[0].tiers[0]
    assert (int4.workers, int4.slots) == (2, 32)  # of the one that does not report, those of the settings
    assert sample.overview.dead_letters.total == 0


async def test_a_redis_that_refuses_to_tell_its_state_is_named(queue: JobQueue, store: redis.Redis) -> None:
    store.acl_setuser("default", enabled=True, commands=["-info"])
    try:
        with pytest.raises(QueueUnreachableError, match=r"denies its user a right: .*'info'"):
            await OverviewReader(queue).read()
    finally:
        store.acl_setuser("default", enabled=True, commands=["+info"])


async def test_an_old_report_says_nothing_about_now(queue: JobQueue, store: redis.Redis, settings: Settings) -> None:
    work(store, settings, "a", "int4", WorkerReport(slots=3, jobs_per_s=5.0), ready=True)
    store.hincrby("rq:worker:a", "reported", -6_000)

    int4 = (await OverviewReader(queue).read()).overview.models[0].tiers[0]

    assert (int4.workers, int4.jobs_per_s, int4.breaker) == (1, 0.0, None)


def sample_at(at: float, **tier: Any) -> Sample:  # noqa: ANN401  (fields of a tier)
    tiers = [msgspec.structs.replace(entry, **tier) for entry in SAMPLE.models[0].tiers]
    models = [msgspec.structs.replace(SAMPLE.models[0], tiers=tiers)]
    return Sample(overview=msgspec.structs.replace(SAMPLE, at=at, models=models), fleet={})


async def test_the_history_rolls_up_stays_bounded_and_survives_a_restart_of_redis(own_valkey: OwnValkey) -> None:
    settings = make_settings(own_valkey.url)
    queue = JobQueue(connect(settings.redis), settings)
    store, begin = HistoryStore(queue, "p"), int((await queue.client.time())[0]) // 900 * 900
    for place in range(12):
        await store.write(sample_at(begin + 10 * place, depth=place, oldest_age_s=float(place)))
    await store.write(sample_at(begin + 110.9, depth=999))  # the span has its point

    own_valkey.kill()
    own_valkey.start()

    after = HistoryStore(queue, "another")
    assert await queue.client.hlen("bl:history:10") == 12
    points = {step: await after._read(RESOLUTIONS[place], [begin, begin + 60]) for place, step in enumerate((10, 60))}
    assert [point.tiers["smollm2"]["int4"].depth for point in points[60]] == [2.5, 8.5]
    assert [point.tiers["smollm2"]["int4"].oldest_age_s for point in points[60]] == [5.0, 11.0]
    (quarter,) = await after._read(RESOLUTIONS[2], [begin])
    assert (quarter.samples, quarter.tiers["smollm2"]["int4"].depth) == (12, 5.5)
    await store.write(sample_at(begin + RESOLUTIONS[0].span_s, depth=7))  # takes the oldest point's place
    assert await queue.client.hlen("bl:history:10") == 12
    await queue.aclose()


async def test_one_process_writes_and_another_goes_on_where_it_gives_up(queue: JobQueue, store: redis.Redis) -> None:
    first, second = HistoryStore(queue, "first"), HistoryStore(queue, "second")

    assert [await first.takes_lease(), await second.takes_lease(), await first.takes_lease()] == [True, False, True]
    assert 0 < store.pttl("bl:history:lease") <= 25_000
    await second.give_up_lease()
    assert not await second.takes_lease()
    await first.give_up_lease()
    assert await second.takes_lease()
