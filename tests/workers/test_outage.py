"""scripts/parts/leases.lua: a lease that nobody could renew does not run out, at the lease that ships."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis

from bitladder.producer import Producer
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.settings.sections import Settings
from workers.lease import LeaseKeeper

LEASE_MS, HOUR_MS = 15_000, 3_600_000
# All times that the scripts have stored, moved at once: to them it is the clock that moved the other way.
MOVE = """
local ms = tonumber(ARGV[1])
for _, worker in ipairs(redis.call('ZRANGE', 'bl:workers', 0, -1)) do
  redis.call('ZINCRBY', 'bl:workers', -ms, worker)
end
redis.call('INCRBY', 'bl:pulse', -ms)
"""
Keepers = Callable[[str], LeaseKeeper]


@pytest.fixture
def keepers(settings: Settings) -> Iterator[Keepers]:
    """Return workers of that name, which renew and reap when they are told to."""
    made: list[LeaseKeeper] = []

    def make(name: str) -> LeaseKeeper:
        made.append(LeaseKeeper(settings, "smollm2", "int4", name, held=dict, drop=lambda lost, cancelled: None))
        return made[-1]

    yield make
    for keeper in made:
        keeper._client.close()


def clock_jumps(store: redis.Redis, ms: int) -> None:
    store.eval(MOVE, 0, ms)


def ends_in(store: redis.Redis, worker: str) -> float | None:
    """Return in how many milliseconds a worker's lease ends; None: it has none."""
    seconds, micros = store.time()
    end: float | None = store.zscore("bl:workers", worker)
    return None if end is None else end - (seconds * 1000 + micros / 1000)


@pytest.mark.parametrize("jump_ms", [18_500, HOUR_MS, -HOUR_MS], ids=["an outage", "set forward", "set back"])
def test_a_lease_that_could_not_be_renewed_begins_anew_whoever_comes_first(
    keepers: Keepers, store: redis.Redis, jump_ms: int
) -> None:
    for name in ("one", "two"):
        keepers(name).renew()
    clock_jumps(store, jump_ms)

    keepers("fresh").reap()  # a process that has just started, and has never heard of either

    for name in ("one", "two"):
        left = ends_in(store, name)
        assert left is not None
        assert LEASE_MS - 2000 < left <= LEASE_MS


@pytest.mark.parametrize("jump_ms", [18_500, HOUR_MS, -HOUR_MS], ids=["an outage", "set forward", "set back"])
def test_who_does_not_come_back_from_an_outage_is_reaped_a_lease_later(
    keepers: Keepers, store: redis.Redis, jump_ms: int
) -> None:
    dead, living = keepers("dead"), keepers("living")
    dead.renew()
    living.renew()
    clock_jumps(store, jump_ms)

    seen = []
    for _ in range(20):  # a second each
        living.renew()
        living.reap()
        seen.append(ends_in(store, "dead") is not None)
        clock_jumps(store, 1000)

    assert seen[:13] == [True] * 13  # and a slow machine's own seconds
    assert seen[16:] == [False] * 4


def test_a_lease_that_had_run_out_before_the_outage_is_not_renewed_by_it(keepers: Keepers, store: redis.Redis) -> None:
    keepers("dead").renew()
    store.zadd("bl:workers", {"dead": store.time()[0] * 1000 - 5000})
    clock_jumps(store, 18_500)

    keepers("living").reap()

    assert ends_in(store, "dead") is None


def test_a_claim_after_the_clock_was_set_back_and_before_anybody_noticed_costs_nobody_a_lease(
    keepers: Keepers, settings: Settings, store: redis.Redis
) -> None:
    keepers("me").renew()
    clock_jumps(store, -HOUR_MS)
    with Producer(settings) as producer:
        producer.submit({"model": "smollm2", "prompt": "x"})

    async def claim() -> int:
        client = connect(settings.redis)
        plan = claim_plan(settings, "smollm2", "int4")
        claims = await JobQueue(client, settings).claim("me", "smollm2", "int4", plan, 1)
        await client.aclose()
        return len(claims.jobs)

    claimed = asyncio.run(claim())
    keepers("other").reap()

    assert claimed == 1
    assert store.scard("bl:inflight:me") == 1
    assert store.llen("rq:queue:smollm2:int4:batch") == 0


def test_renewals_that_go_on_leave_the_lease_of_a_dead_worker_alone(keepers: Keepers, store: redis.Redis) -> None:
    keepers("dead").renew()
    living = keepers("living")

    for _ in range(16):
        clock_jumps(store, 1000)  # a second passes
        living.renew()
        living.reap()

    assert ends_in(store, "dead") is None
