"""One sampler for all that watch, and the routes of the overview."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import httpx2
import msgspec
import pytest
import redis

from bitladder.errors import QueueUnreachableError, RateLimitError
from bitladder.overview.overview_reader import Sample
from bitladder.overview.shape import Overview
from dispatcher.app import create_app
from dispatcher.overview import sampler as sampling
from dispatcher.overview.history_writer import HistoryWriter
from dispatcher.overview.sampler import OverviewSampler
from tests.conftest import ROOT, make_settings

FILE = ROOT / "tests/bitladder/overview/overview_sample.json"
OVERVIEW = msgspec.json.decode(Path(FILE).read_bytes(), type=Overview)


class Source:
    """Gives samples that count up, or fails."""

    def __init__(self) -> None:
        self.reads, self.is_down = 0, False

    async def read(self) -> Sample:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise QueueUnreachableError("no Redis here")
        return Sample(overview=msgspec.structs.replace(OVERVIEW, at=float(self.reads)), fleet={})


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(sampling, "INTERVAL_S", 0.01)
    return Source()


def time_of(event: bytes) -> float:
    return float(json.loads(event.partition(b"data: ")[2])["at"])


async def test_all_that_watch_share_the_samples_and_a_slow_reader_gets_the_latest(source: Source) -> None:
    sampler = OverviewSampler(source.read)
    readers = []
    for _ in range(50):
        sampler.open()
        readers.append(sampler.events())
    slow, *fast = readers
    first = [await anext(reader) for reader in fast]
    while source.reads < 10:
        await asyncio.gather(*map(anext, fast))

    assert len(set(first)) == 1
    assert time_of(await anext(slow)) >= source.reads - 1
    assert source.reads < 20
    await sampler.aclose()


async def test_nothing_is_sampled_once_the_last_reader_is_gone(source: Source) -> None:
    sampler = OverviewSampler(source.read)
    sampler.open()
    sampler.open()
    await anext(sampler.events())
    sampler.close()
    assert sampler.watching == 1
    sampler.close()
    reads = source.reads
    await asyncio.sleep(0.05)

    assert source.reads <= reads + 1
    sampler.open()
    assert time_of(await anext(sampler.events())) >= reads
    await sampler.aclose()


async def test_a_stream_too_many_is_refused_and_its_place_is_free_again(source: Source) -> None:
    sampler = OverviewSampler(source.read)
    for _ in range(sampling.MAX_STREAMS):
        sampler.open()

    with pytest.raises(RateLimitError, match="100 streams of the overview are open"):
        sampler.open()
    sampler.close()
    sampler.open()
    await sampler.aclose()


async def test_a_stream_says_that_redis_is_gone_and_goes_on(source: Source) -> None:
    sampler = OverviewSampler(source.read)
    sampler.open()
    events = sampler.events()
    await anext(events)
    source.is_down = True
    while not (event := await anext(events)).startswith(b"event: problem\n"):
        pass
    assert b"no Redis here" in event
    source.is_down = False
    while not (await anext(events)).startswith(b"event: sample\n"):
        pass
    await sampler.aclose()


async def test_callers_that_come_together_share_one_sample() -> None:
    source = Source()
    sampler = OverviewSampler(source.read)

    await asyncio.gather(*(sampler.take() for _ in range(20)))

    assert source.reads == 1


async def test_the_routes_show_a_sample_its_stream_and_its_history(redis_url: str, store: redis.Redis) -> None:
    app = create_app(make_settings(redis_url))
    async with app.router.lifespan_context(app), contextlib.AsyncExitStack() as stack:
        transport = httpx2.ASGITransport(app=app)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url="http://intake"))
        sample = await http.get("/v1/overview")
        history = await http.get("/v1/overview/history", params={"range": "24h"})
        wrong = await http.get("/v1/overview/history", params={"range": "1 year"})

    overview = msgspec.json.decode(sample.content, type=Overview)
    assert [tier.tier for tier in overview.models[0].tiers] == ["int4", "int8", "fp8"]
    assert overview.notes[0].text == "smollm2 int4: no live worker; jobs that need it will wait"
    assert (history.json()["resolution_s"], len(history.json()["at"])) == (60, 1440)
    assert history.json()["models"][0]["tiers"][0]["depth"] == [None] * 1440
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "range")
    assert "from 60s to 30d, got '1 year'" in wrong.json()["error"]["message"]


async def test_another_intake_shows_the_history_and_goes_on_with_it(redis_url: str, store: redis.Redis) -> None:
    for tick in (1, 2):
        app = create_app(make_settings(redis_url))
        async with app.router.lifespan_context(app):
            state = app.state.intake
            writer = asyncio.create_task(HistoryWriter(state.history, state.overview.take).run())
            store.delete("bl:history:counts")  # as if ten seconds had gone by
            await HistoryWriter(state.history, state.overview.take).tick()
            history = await state.history.read(3600)
            writer.cancel()
            await asyncio.wait([writer])

        tier = history.models[0].tiers[0]
        assert sum(depth is not None for depth in tier.depth) >= 1
        assert history.at[-1] - history.at[0] == 3590
        assert store.exists("bl:history:lease") == 0  # given up in order
        assert store.hlen("bl:history:10") <= tick
