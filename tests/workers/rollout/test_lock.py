"""workers/rollout/lock.py: one worker of a model holds the lock, and none waits for ever for one that is gone."""

from __future__ import annotations

import asyncio

import pytest
import redis

from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.sections import Settings
from workers.rollout.lock import RolloutLock


async def test_one_worker_of_a_model_at_a_time_holds_the_lock(settings: Settings) -> None:
    first, second, other = (RolloutLock(settings.redis, model) for model in ("m", "m", "n"))

    assert [await first.acquire(), await second.acquire(), await other.acquire()] == [True, False, True]
    assert await first.acquire()
    await first.release()
    assert await second.acquire()

    for lock in (first, second, other):
        await lock.close()


async def test_a_worker_that_ends_releases_the_lock(settings: Settings, store: redis.Redis) -> None:
    lock = RolloutLock(settings.redis, "m")
    await lock.acquire()

    await lock.close()

    assert not store.exists("bl:rollout:m")


async def test_the_lock_ends_by_itself_unless_it_is_renewed(
    settings: Settings, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.rollout.lock.LOCK_S", 0.3)
    gone, next_one = RolloutLock(settings.redis, "m"), RolloutLock(settings.redis, "m")
    await gone.acquire()

    for _ in range(5):
        await asyncio.sleep(0.1)
        await gone.renew()
        assert not await next_one.acquire()
    await asyncio.sleep(0.4)

    assert await next_one.acquire()
    await gone.renew()
    assert not gone.is_held
    await gone.release()
    assert store.exists("bl:rollout:m")
    for lock in (gone, next_one):
        await lock.close()


async def test_without_redis_no_worker_gets_the_lock() -> None:
    lock = RolloutLock(RedisSettings(url="redis://127.0.0.1:1/0"), "m")

    assert not await lock.acquire()
    await lock.close()
