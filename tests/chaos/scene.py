"""Everything one chaos run needs: Valkey behind the proxy, intakes, workers on three tiers, and their settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import redis

from dispatcher.embedded import is_answering
from dispatcher.sections import RedisSettings, Settings
from tests.chaos.proxy import Proxy
from tests.chaos.services import Fleet, make_fleet
from tests.conftest import ROOT, free_port, make_settings

# Two where nobody above can help.
TIERS = ("int4", "int8", "fp8", "fp8")
# Settings of every process here. Leases are short, so that a run sees many of them run out; they run out on purpose
# and again and again, so there are more attempts than usual.
FLAGS: dict[str, Any] = {
    "queue.lease_s": 2.5,
    "queue.max_attempts": 8,
    "queue.durability": "fsync",  # Valkey is killed, and accepted has to mean kept
    "echo.tokens_per_s": 80,
    "models.smollm2.tiers.fp8.slots": 32,
    "echo.fault_ratio": 0.02,
    "worker.fault_ratio": 0.2,  # so many faults are meant: no engine is to be started again for them
    "worker.drain_grace_s": 1,
}
UP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A running stack."""

    settings: Settings  # through the proxy
    fleet: Fleet
    proxy: Proxy
    urls: list[str]  # of the intakes
    store: redis.Redis  # straight to Valkey
    session: aiohttp.ClientSession


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Run a stack while the block runs; its processes write into `folder`."""
    embedded = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder / "valkey"))
    store = redis.Redis.from_url(embedded.url)
    with Proxy(int(embedded.url.rpartition(":")[2].removesuffix("/0"))) as proxy:
        through = f"redis://127.0.0.1:{proxy.port}/0"
        settings = make_settings(through, **{key.replace(".", "__"): value for key, value in FLAGS.items()})
        own = {"BITLADDER_" + key.upper().replace(".", "__"): str(value) for key, value in FLAGS.items()}
        own |= {
            "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
            "BITLADDER_REDIS__URL": through,
            "BITLADDER_WORKER__ENGINE": "echo",
        }
        ports = [free_port(), free_port()]
        fleet = make_fleet(embedded, own, ports, TIERS, folder)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        async with _supervised(fleet), aiohttp.ClientSession() as session:
            its = Scene(settings=settings, fleet=fleet, proxy=proxy, urls=urls, store=store, session=session)
            await _until_up(its, embedded)
            yield its
    store.close()


@contextlib.asynccontextmanager
async def _supervised(fleet: Fleet) -> AsyncIterator[None]:
    watch = asyncio.create_task(fleet.supervise())
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await asyncio.to_thread(fleet.stop)


async def _until_up(its: Scene, embedded: RedisSettings) -> None:
    async with asyncio.timeout(UP_S):
        while not await asyncio.to_thread(is_answering, embedded):
            await asyncio.sleep(0.05)
        for url in its.urls:
            while not await _is_ready(its.session, url):
                await asyncio.sleep(0.1)


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as answer:
            live = (await answer.json()).get("live_workers", {})
            return answer.status == 200 and sum(sum(tiers.values()) for tiers in live.values()) >= len(TIERS)
    except aiohttp.ClientError:
        return False
