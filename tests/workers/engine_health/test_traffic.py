"""workers/engine_health/traffic.py: which requests are in the engine, how they end, and which of them stall."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from bitladder.contract import Claimed
from bitladder.settings.worker_section import EchoSettings
from workers.engine_health.blame import FaultyAttempt
from workers.engine_health.traffic import Traffic
from workers.engines.base import Answer, EngineLoad, OnChunk
from workers.engines.echo import EchoEngine
from workers.engines.errors import EngineBusyError, EngineFaultError, EnoughError
from workers.metrics.worker_metrics import WorkerMetrics

ROUTE = "/v1/completions"
HANG_S = 0.1


class Silent(EchoEngine):
    """Gives one chunk of a stream, and then nothing; a plain request gets nothing at all."""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        if on_chunk:
            await on_chunk(b"data: {}\n\n")
        await asyncio.Event().wait()
        raise AssertionError("it is never set")


def traffic_of(engine: EchoEngine) -> Traffic:
    return Traffic(engine, WorkerMetrics("m", "int4"), HANG_S)


def echo() -> EchoEngine:
    return EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))


async def take(chunk: bytes) -> None:
    assert chunk


async def after(seconds: float, traffic: Traffic, loads: Iterable[EngineLoad]) -> None:
    """Read loads for so long, again and again."""
    end = asyncio.get_running_loop().time() + seconds
    for load in loads:
        traffic.observe(load)
        await asyncio.sleep(HANG_S / 4)
        if asyncio.get_running_loop().time() > end:
            return


def same(load: EngineLoad) -> list[EngineLoad]:
    return [load] * 1000


def moving() -> list[EngineLoad]:
    return [EngineLoad(tokens=number) for number in range(1000)]


def claimed(job_id: str = "job", crash_count: int = 0) -> Claimed:
    return Claimed(
        job_id=job_id,
        queue="m:int4:normal",
        data=b"",
        attempt=1,
        fence=1,
        enqueued_ms=0,
        deadline_ms=None,
        claimed_ms=0,
        crash_count=crash_count,
    )


async def test_an_answer_of_which_no_more_was_wanted_counts_as_one() -> None:
    async def enough(chunk: bytes) -> None:
        raise EnoughError(f"{len(chunk)} bytes")

    traffic = Traffic(echo(), WorkerMetrics("m", "int4"), HANG_S)
    with pytest.raises(EnoughError):
        await traffic.for_job(claimed()).generate(ROUTE, b'{"prompt": "one two three"}', enough)

    assert (traffic.has_served, traffic.faults.may_exceed(0)) == (True, False)
    await traffic.idle(timeout_s=1)
    assert not traffic.is_hung()


async def test_the_fault_of_a_job_is_undecided_as_is_that_of_a_job_whose_stream_stalls() -> None:
    traffic = Traffic(echo(), WorkerMetrics("m", "int4"), HANG_S)
    with pytest.raises(EngineFaultError):
        await traffic.for_job(claimed("a")).generate(ROUTE, b'{"prompt": "echo:fault"}', None)
    stalled = traffic_of(Silent(EchoSettings()))
    stream = asyncio.create_task(stalled.for_job(claimed("b")).generate(ROUTE, b"{}", take))
    await after(HANG_S * 2, stalled, moving())
    with pytest.raises(EngineFaultError):
        await stream

    assert traffic.faults.undecided() == [FaultyAttempt("a", 1)]
    assert stalled.faults.undecided() == [FaultyAttempt("b", 1)]


async def test_faults_are_counted_and_busy_engines_are_not() -> None:
    metrics = WorkerMetrics("m", "int4")
    traffic = Traffic(echo(), metrics, HANG_S)
    for prompt, error in (
        ("echo:fault", EngineFaultError),
        ("echo:nan", EngineFaultError),
        ("echo:busy", EngineBusyError),
    ):
        for _ in range(3):
            with pytest.raises(error):
                await traffic.generate(ROUTE, b'{"prompt": "%s"}' % prompt.encode(), None)
        assert traffic.faults.exceeds(0.5) is (prompt != "echo:fault")

    labels = {"model": "m", "tier": "int4", "seen_by": "answer"}
    assert metrics.registry.get_sample_value("bitladder_engine_corrupted_total", labels) == 3
    assert not traffic.has_served
    await traffic.generate(ROUTE, b'{"prompt": "a"}', None)
    assert traffic.has_served


@pytest.mark.parametrize("on_chunk", [None, take], ids=["plain", "stream"])
async def test_an_engine_whose_figures_stand_still_hangs(on_chunk: OnChunk | None) -> None:
    traffic = traffic_of(Silent(EchoSettings()))
    running = asyncio.create_task(traffic.generate(ROUTE, b"{}", on_chunk))

    await after(HANG_S * 2, traffic, same(EngineLoad(tokens=7)))

    assert traffic.is_hung()
    running.cancel()


async def test_an_idle_engine_does_not_hang_nor_one_that_has_just_got_a_request() -> None:
    traffic = traffic_of(Silent(EchoSettings()))
    await after(HANG_S * 2, traffic, same(EngineLoad(tokens=7)))
    assert not traffic.is_hung()

    running = asyncio.create_task(traffic.generate(ROUTE, b"{}", None))
    await asyncio.sleep(0)
    traffic.observe(EngineLoad(tokens=7))

    assert not traffic.is_hung()
    running.cancel()


async def test_an_engine_that_does_not_report_its_progress_may_take_its_time_for_a_plain_request() -> None:
    traffic = traffic_of(Silent(EchoSettings()))
    running = asyncio.create_task(traffic.generate(ROUTE, b"{}", None))

    await after(HANG_S * 2, traffic, same(EngineLoad()))

    assert not traffic.is_hung()
    assert not running.done()
    running.cancel()


async def test_a_stream_that_stalls_in_a_running_engine_is_a_fault_of_its_own() -> None:
    traffic = traffic_of(Silent(EchoSettings()))
    stream = asyncio.create_task(traffic.generate(ROUTE, b"{}", take))
    plain = asyncio.create_task(traffic.generate(ROUTE, b"{}", None))

    await after(HANG_S * 2, traffic, moving())

    assert not traffic.is_hung()
    with pytest.raises(EngineFaultError, match=r"no token for 0\.1 s"):
        await asyncio.wait_for(stream, 1)
    assert not plain.done()
    plain.cancel()


async def test_a_reader_that_takes_no_chunk_is_not_the_engine_s_fault() -> None:
    is_unreachable = asyncio.Event()

    async def slow(chunk: bytes) -> None:
        await is_unreachable.wait()

    traffic = traffic_of(echo())
    stream = asyncio.create_task(traffic.generate(ROUTE, b'{"prompt": "a"}', slow))

    await after(HANG_S * 2, traffic, same(EngineLoad(tokens=7)))

    assert not traffic.is_hung()
    is_unreachable.set()
    assert (await asyncio.wait_for(stream, 1)).status == 200


async def test_what_the_engine_counts_as_corrupted_counts_as_faults_and_a_new_count_starts_from_nothing() -> None:
    traffic = traffic_of(echo())
    for corrupted in (3, 3, 0):  # the last one is of an engine that was started anew
        traffic.observe(EngineLoad(tokens=1, corrupted=corrupted))
    assert not traffic.faults.exceeds(0.01)

    traffic.observe(EngineLoad(tokens=1, corrupted=2))

    assert traffic.faults.exceeds(0.01)


async def test_idle_waits_for_the_requests_in_the_engine_but_not_for_ever() -> None:
    traffic = traffic_of(EchoEngine(EchoSettings(ttft_ms=50)))
    running = asyncio.create_task(traffic.generate(ROUTE, b'{"prompt": "a", "max_tokens": 1}', None))
    await asyncio.sleep(0)

    await traffic.idle(0.001)
    assert not running.done()
    await traffic.idle(5)
    await asyncio.sleep(0)
    assert running.done()
