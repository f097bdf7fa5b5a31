"""One worker of a model at a time may change its checkpoint; nobody waits for ever for one that is gone."""

from __future__ import annotations

import asyncio

import pytest
import redis

from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.sections import Settings
from workers.rollout.lock import Turn


async def test_one_at_a_time_has_the_turn(settings: Settings) -> None:
    first, second, other = (Turn(settings.redis, model) for model in ("m", "m", "n"))

    assert [await first.take(), await second.take(), await other.take()] == [True, False, True]
    assert await first.take()
    await first.leave()
    assert await second.take()

    for turn in (first, second, other):
        await turn.close()


async def test_a_worker_that_ends_leaves_its_turn(settings: Settings, store: redis.Redis) -> None:
    turn = Turn(settings.redis, "m")
    await turn.take()

    await turn.close()

    assert not store.exists("bl:rollout:m")


async def test_the_turn_ends_by_itself_unless_it_is_kept(
    settings: Settings, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.rollout.lock.TURN_S", 0.3)
    gone, next_one = Turn(settings.redis, "m"), Turn(settings.redis, "m")
    await gone.take()

    for _ in range(5):
        await asyncio.sleep(0.1)
        await gone.keep()
        assert not await next_one.take()
    await asyncio.sleep(0.4)

    assert await next_one.take()
    await gone.keep()
    assert not gone.is_held
    await gone.leave()
    assert store.exists("bl:rollout:m")
    for turn in (gone, next_one):
        await turn.close()


async def test_without_redis_nobody_has_the_turn() -> None:
    turn = Turn(RedisSettings(url="redis://127.0.0.1:1/0"), "m")

    assert not await turn.take()
    await turn.close()
