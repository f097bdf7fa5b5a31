"""Everything one chaos run needs: Valkey behind proxies, intakes, workers on three tiers, and their settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import redis

from bitladder.queue.server.embedded import is_answering
from bitladder.queue.signing import Signer
from bitladder.settings.queue_section import Durability
from bitladder.settings.redis_section import RedisSettings
from bitladder.settings.sections import Settings
from tests.chaos.proxy import Proxy
from tests.chaos.system.disk import Disk
from tests.chaos.system.services import Fleet, make_fleet
from tests.conftest import ROOT, free_port, make_settings

# Two where nobody above can help.
TIERS = ("int4", "int8", "fp8", "fp8")
# Settings of every process here. Those of the echo engine say what it is given to do: all others are those that ship,
# the lease above all.
FLAGS: dict[str, Any] = {"echo.tokens_per_s": 80, "echo.fault_ratio": 0.002}
SECRET = "of-the-chaos-run-alone"  # noqa: S105
UP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What differs between runs."""

    durability: Durability = "everysec"  # as it ships
    is_signed: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)  # more of them
    environment: Mapping[str, str] = field(default_factory=dict)  # more, of intakes and workers

    def flags(self, folder: Path) -> dict[str, Any]:
        signed = {"queue.secrets": [SECRET]} if self.is_signed else {}
        log = {"echo.execution_log": str(execution_log(folder))}
        return {**FLAGS, **log, "queue.durability": self.durability, **signed, **self.settings}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A running stack."""

    settings: Settings  # through the front proxy
    fleet: Fleet
    front: Proxy  # of intakes and producers
    own: Mapping[str, Proxy]  # of each worker, by its service's name
    disk: Disk
    urls: list[str]  # of the intakes
    store: redis.Redis  # straight to Valkey
    embedded: RedisSettings  # the same
    signer: Signer
    session: aiohttp.ClientSession

    @property
    def proxies(self) -> list[Proxy]:
        return [self.front, *self.own.values()]


def execution_log(folder: Path) -> Path:
    return folder / "executions.jsonl"


@contextlib.asynccontextmanager
async def scene(folder: Path, kind: Kind) -> AsyncIterator[Scene]:
    """Run a stack while the block runs; its processes write into `folder`."""
    embedded = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0", data_dir=str(folder / "valkey"))
    store = redis.Redis.from_url(embedded.url)
    with _proxies(int(embedded.url.rpartition(":")[2].removesuffix("/0"))) as (front, own):
        flags = kind.flags(folder)
        settings = make_settings(_url(front), **{key.replace(".", "__"): value for key, value in flags.items()})
        environment = {"BITLADDER_" + key.upper().replace(".", "__"): _toml(value) for key, value in flags.items()}
        environment |= {
            "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
            "BITLADDER_REDIS__URL": _url(front),
            "BITLADDER_WORKER__ENGINE": "echo",
            "BITLADDER_PUBLISH__FILE": "",
            **kind.environment,
        }
        ports = [free_port(), free_port()]
        workers = {name: (name.partition("-")[0], _url(proxy)) for name, proxy in own.items()}
        fleet = make_fleet(embedded, kind.durability, environment, ports, workers, folder)
        connector = aiohttp.TCPConnector(limit=0)  # else clients wait for each other
        async with _supervised(fleet), aiohttp.ClientSession(connector=connector) as session:
            its = Scene(
                settings=settings,
                fleet=fleet,
                front=front,
                own=own,
                disk=Disk(folder / "valkey"),
                urls=[f"http://127.0.0.1:{port}" for port in ports],
                store=store,
                embedded=embedded,
                signer=Signer(settings.queue.secrets),
                session=session,
            )
            await until_up(its)
            its.disk.start()
            yield its
            its.disk.stop()
    store.close()


@contextlib.contextmanager
def _proxies(port: int) -> Iterator[tuple[Proxy, dict[str, Proxy]]]:
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(Proxy(port))
        yield front, {f"{tier}-{number}": stack.enter_context(Proxy(port)) for number, tier in enumerate(TIERS)}


def _url(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


def _toml(value: object) -> str:
    return str(value) if not isinstance(value, list) else str(value).replace("'", '"')


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


async def until_up(its: Scene) -> None:
    """Wait until Valkey answers, and both intakes know of every worker."""
    async with asyncio.timeout(UP_S):
        await until_answering(its.embedded)
        for url in its.urls:
            while not await _is_ready(its.session, url):
                await asyncio.sleep(0.1)


async def until_answering(embedded: RedisSettings) -> None:
    while not await asyncio.to_thread(is_answering, embedded):
        await asyncio.sleep(0.05)


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as answer:
            live = (await answer.json()).get("live_workers", {})
            return answer.status == 200 and sum(sum(tiers.values()) for tiers in live.values()) >= len(TIERS)
    except aiohttp.ClientError:
        return False
