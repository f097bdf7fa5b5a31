"""bitladder/queue/server/sockets.py: whatever happens to a connection is told in one way."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import uvloop
from redis.exceptions import RedisError

from bitladder.queue.server.connection import connect
from tests.chaos.proxy import Proxy
from tests.conftest import make_settings

CUTS = 60


def test_a_connection_that_is_cut_under_uvloop_is_an_error_of_redis_or_none(redis_url: str) -> None:
    with Proxy(int(redis_url.rpartition(":")[2].removesuffix("/0"))) as proxy:
        met = uvloop.run(_cut_while_asking(proxy))

    assert set(met) <= {"answered", "error of redis"}


async def _cut_while_asking(proxy: Proxy) -> Counter[str]:
    client, met = connect(make_settings(f"redis://127.0.0.1:{proxy.port}/0").redis), Counter[str]()
    is_over, answered = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        while not is_over.is_set():
            kind = await _kind(client)
            met[kind] += 1
            if kind == "answered":
                answered.set()

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    for _ in range(CUTS):
        answered.clear()
        await asyncio.wait_for(answered.wait(), 20)
        await asyncio.to_thread(proxy.cut)
    answered.clear()
    await asyncio.wait_for(answered.wait(), 20)  # after the last one, too
    is_over.set()
    await asyncio.gather(*asking)
    await client.aclose()
    return met


async def _kind(client: Any) -> str:  # noqa: ANN401  (redis-py's client)
    try:
        async with client.pipeline(transaction=False) as pipe:
            await pipe.ping().execute()
    except RedisError:
        return "error of redis"
    except Exception as error:
        return repr(error)
    return "answered"
