"""bitladder/queue/waiting/subscription.py: one channel, whatever happens to its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis
from structlog.testing import capture_logs

from bitladder.queue.waiting import subscription as module
from bitladder.queue.waiting.subscription import Subscription
from tests.chaos.proxy import Proxy
from tests.conftest import make_settings


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (of another process)
            await asyncio.sleep(0.02)


async def test_a_connection_that_has_gone_deaf_is_given_up_for_another(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_EVERY_S", 0.3)
    heard: list[bytes] = []
    gaps: list[None] = []
    port = int(redis_url.rpartition(":")[2].split("/")[0])
    with Proxy(port) as proxy, capture_logs() as logs:
        settings = make_settings(f"redis://127.0.0.1:{proxy.port}/0").redis
        mine = Subscription(settings, "bl:reply:me", heard.append, lambda: gaps.append(None))
        task = asyncio.create_task(mine.run())
        await until(mine.subscribed.is_set)
        await asyncio.sleep(1)  # a silent channel is no deaf one
        before = proxy.accepted

        proxy.black_hole()
        await asyncio.sleep(0.5)
        proxy.heal()
        await until(lambda: store.publish("bl:reply:me", "x") > 0 and b"x" in heard)
        task.cancel()
        await asyncio.wait([task])
        await mine.aclose()

    assert before == 1
    assert proxy.accepted > 1
    assert len(gaps) >= 2  # who waits is told to look at what is stored
    assert "channel lost, subscribing again" in [entry["event"] for entry in logs]


async def test_a_message_that_is_not_understood_is_skipped_and_logged_without_its_words(
    redis_url: str, store: redis.Redis
) -> None:
    heard: list[bytes] = []

    def take(message: bytes) -> None:
        if message.startswith(b"odd"):
            raise ValueError(f"odd: {message!r}")
        heard.append(message)

    with capture_logs() as logs:
        mine = Subscription(make_settings(redis_url).redis, "bl:reply:me", take)
        task = asyncio.create_task(mine.run())
        await until(mine.subscribed.is_set)
        for message in ("one", "odd secret", "odd secret", "two"):
            store.publish("bl:reply:me", message)
        await until(lambda: len(heard) == 2)
        task.cancel()
        await asyncio.wait([task])
        await mine.aclose()

    assert heard == [b"one", b"two"]
    assert [entry["event"] for entry in logs] == ["message not understood"]
    assert "secret" not in str(logs)
