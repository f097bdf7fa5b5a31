"""workers/engine_health/traffic.py: what is in the engine, how it ends, and who keeps whom waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from bitladder.contract import Claimed
from bitladder.errors import EngineBusyError, EngineFaultError
from bitladder.settings.worker_section import EchoSettings
from workers.engine_health.blame import Blame, Suspect
from workers.engine_health.traffic import MANY_FAULTS, MIN_FAULTS, WINDOW, FaultWindow, Traffic
from workers.engines.base import Answer, Load, OnChunk
from workers.engines.echo import EchoEngine
from workers.metrics import WorkerMetrics

ROUTE = "/v1/completions"
HANG_S = 0.1


class Silent(EchoEngine):
    """Gives one chunk of a stream, and then nothing; a plain request gets nothing at all."""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        if on_chunk:
            await on_chunk(b"data: {}\n\n")
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


def traffic_of(engine: EchoEngine) -> Traffic:
    return Traffic(engine, WorkerMetrics("m", "int4"), HANG_S)


def echo() -> EchoEngine:
    return EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))


async def take(chunk: bytes) -> None:
    assert chunk


async def after(seconds: float, traffic: Traffic, loads: Iterable[Load]) -> None:
    """Read loads for so long, again and again."""
    end = asyncio.get_running_loop().time() + seconds
    for load in loads:
        traffic.observe(load)
        await asyncio.sleep(HANG_S / 4)
        if asyncio.get_running_loop().time() > end:
            return


def same(load: Load) -> list[Load]:
    return [load] * 1000


def moving() -> list[Load]:
    return [Load(tokens=number) for number in range(1000)]


def test_one_fault_among_a_few_requests_says_nothing() -> None:
    window = FaultWindow()
    for number in range(MIN_FAULTS):
        assert not window.exceeds(0.01)
        window.note(is_fault=number > 0)

    assert not window.exceeds(0.01)
    window.note(is_fault=True)
    assert window.exceeds(0.01)


@pytest.mark.parametrize(("every", "exceeds"), [(101, False), (90, True)])
def test_the_share_of_faults_is_that_of_the_last_requests(every: int, exceeds: bool) -> None:
    window = FaultWindow()
    for _ in range(WINDOW):
        window.note(is_fault=True)  # long ago
    for number in range(WINDOW):
        window.note(is_fault=number % every == 0)

    assert window.exceeds(0.01) is exceeds


def test_a_ratio_of_one_never_restarts() -> None:
    window = FaultWindow()
    for _ in range(WINDOW):
        window.note(is_fault=True)

    assert not window.exceeds(1)


def faulty(count: int, *, sound: int = 0, attempt: int = 1) -> FaultWindow:
    """Return a window with the faults of so many jobs, of whom it is not known whose they were."""
    window = FaultWindow()
    for number in range(count):
        window.note(is_fault=True, suspect=Suspect(f"job-{number}", attempt))
    for _ in range(sound):
        window.note(is_fault=False)
    return window


@pytest.mark.parametrize(
    ("blame", "exceeds"), [(Blame.ENGINE, True), (Blame.PROMPT, False), (Blame.UNCLEAR, False), (Blame.NOBODY, False)]
)
def test_a_job_s_fault_is_the_engine_s_only_once_that_is_known(blame: Blame, exceeds: bool) -> None:
    window = faulty(10, sound=10)
    assert (window.exceeds(0.01), window.may_exceed(0.01)) == (False, True)

    window.settle({suspect: blame for suspect in window.suspects()[:MIN_FAULTS]})
    assert window.exceeds(0.01) is exceeds
    assert window.may_exceed(0.01)
    window.settle({suspect: blame for suspect in window.suspects()})

    assert window.suspects() == []
    assert window.may_exceed(0.01) is exceeds


@pytest.mark.parametrize(
    ("count", "sound", "attempt", "blame", "is_broken"),
    [
        (MANY_FAULTS, MANY_FAULTS - 1, 1, Blame.UNCLEAR, True),
        (MANY_FAULTS, MANY_FAULTS, 1, Blame.UNCLEAR, False),
        (MANY_FAULTS - 1, 0, 1, Blame.UNCLEAR, False),
        (200, 0, 2, Blame.UNCLEAR, False),  # they had broken another engine before
        (200, 0, 1, Blame.PROMPT, False),  # or have since
    ],
)
def test_more_faults_than_answers_on_this_engine_only_are_no_prompts(
    count: int, sound: int, attempt: int, blame: Blame, is_broken: bool
) -> None:
    window = faulty(count, sound=sound, attempt=attempt)
    window.settle({suspect: blame for suspect in window.suspects()})

    assert window.is_broken() is is_broken


def claimed(job_id: str = "job", suspicion: int = 0) -> Claimed:
    return Claimed(
        job_id=job_id,
        queue="m:int4:normal",
        data=b"",
        attempt=1,
        fence=1,
        enqueued_ms=0,
        deadline_ms=None,
        claimed_ms=0,
        suspicion=suspicion,
    )


async def test_a_job_that_breaks_is_a_suspect_as_is_one_whose_stream_stands_still() -> None:
    traffic = Traffic(echo(), WorkerMetrics("m", "int4"), HANG_S)
    with pytest.raises(EngineFaultError):
        await traffic.of(claimed("a")).generate(ROUTE, b'{"prompt": "echo:fault"}', None)
    still = traffic_of(Silent(EchoSettings()))
    stream = asyncio.create_task(still.of(claimed("b")).generate(ROUTE, b"{}", take))
    await after(HANG_S * 2, still, moving())
    with pytest.raises(EngineFaultError):
        await stream

    assert traffic.faults.suspects() == [Suspect("a", 1)]
    assert still.faults.suspects() == [Suspect("b", 1)]


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

    await after(HANG_S * 2, traffic, same(Load(tokens=7)))

    assert traffic.is_hung()
    running.cancel()


async def test_an_idle_engine_does_not_hang_nor_one_that_has_just_got_something_to_do() -> None:
    traffic = traffic_of(Silent(EchoSettings()))
    await after(HANG_S * 2, traffic, same(Load(tokens=7)))
    assert not traffic.is_hung()

    running = asyncio.create_task(traffic.generate(ROUTE, b"{}", None))
    await asyncio.sleep(0)
    traffic.observe(Load(tokens=7))

    assert not traffic.is_hung()
    running.cancel()


async def test_an_engine_that_says_nothing_of_its_progress_may_take_its_time_for_a_plain_request() -> None:
    traffic = traffic_of(Silent(EchoSettings()))
    running = asyncio.create_task(traffic.generate(ROUTE, b"{}", None))

    await after(HANG_S * 2, traffic, same(Load()))

    assert not traffic.is_hung()
    assert not running.done()
    running.cancel()


async def test_a_stream_that_stands_still_in_a_running_engine_is_a_fault_of_its_own() -> None:
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

    await after(HANG_S * 2, traffic, same(Load(tokens=7)))

    assert not traffic.is_hung()
    is_unreachable.set()
    assert (await asyncio.wait_for(stream, 1)).status == 200


async def test_what_the_engine_counts_as_corrupted_counts_as_faults_and_a_new_count_starts_from_nothing() -> None:
    traffic = traffic_of(echo())
    for corrupted in (3, 3, 0):  # the last one is of an engine that was started anew
        traffic.observe(Load(tokens=1, corrupted=corrupted))
    assert not traffic.faults.exceeds(0.01)

    traffic.observe(Load(tokens=1, corrupted=2))

    assert traffic.faults.exceeds(0.01)


async def test_idle_waits_for_what_is_in_the_engine_but_not_for_ever() -> None:
    traffic = traffic_of(EchoEngine(EchoSettings(ttft_ms=50)))
    running = asyncio.create_task(traffic.generate(ROUTE, b'{"prompt": "a", "max_tokens": 1}', None))
    await asyncio.sleep(0)

    await traffic.idle(0.001)
    assert not running.done()
    await traffic.idle(5)
    await asyncio.sleep(0)
    assert running.done()
