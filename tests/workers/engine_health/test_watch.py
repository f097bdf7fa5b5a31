"""workers/engine_health/watch.py: an engine that goes and comes, hangs, breaks, and is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest
from prometheus_client import CollectorRegistry

from bitladder.settings.worker_section import EchoSettings, WorkerSettings
from tests.workers.engine_health.test_traffic import claimed
from workers.engine_health import breaker
from workers.engine_health import watch as engine_watch
from workers.engine_health.blame import Blame, FaultyAttempt
from workers.engine_health.traffic import Traffic
from workers.engine_health.watch import EngineWatch
from workers.engines.base import Answer, OnChunk
from workers.engines.echo import EchoEngine
from workers.engines.errors import EngineBusyError, EngineError, EngineFaultError, EngineLostError
from workers.metrics.worker_metrics import WorkerMetrics

ROUTE = "/v1/completions"
FAST = EchoSettings(ttft_ms=1, tokens_per_s=1000)


class Reluctant(EchoEngine):
    """An echo engine that answers only after some tries to start it, and then with reduced settings."""

    def __init__(self, tries: int) -> None:
        super().__init__(FAST)
        self.tries = tries

    async def is_healthy(self) -> bool:
        return self.tries <= 0

    async def start(self) -> str:
        self.tries -= 1
        if self.tries == 2:
            raise ValueError("a defect")
        if self.tries > 0:
            raise EngineFaultError("not yet")
        return "--max-model-len 1024"


class Breakable(EchoEngine):
    """An echo engine that breaks on every request until it is repaired."""

    is_broken = False

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        if self.is_broken:
            raise EngineFaultError("broken")
        return await super().generate(endpoint, body, on_chunk)


class Watched:
    """An engine under watch, and what its watch reported."""

    def __init__(self, engine: EchoEngine, **settings: object) -> None:
        self.readiness: list[bool] = []
        self.metrics = WorkerMetrics("m", "int4")
        worker = WorkerSettings().model_copy(update={"hang_s": 0.2, **settings})
        self.blame: Blame | None = None  # whose fault it was that a job broke
        self.traffic = Traffic(engine, self.metrics, worker.hang_s)
        watch = EngineWatch(self.traffic, worker, self.metrics, self.on_ready, lambda load: None, self.find_blame)
        self.task = asyncio.create_task(watch.run())

    async def on_ready(self, is_ready: bool) -> None:
        self.readiness.append(is_ready)

    async def find_blame(self, attempts: Sequence[FaultyAttempt]) -> Mapping[FaultyAttempt, Blame]:
        return dict.fromkeys(attempts, self.blame) if self.blame else {}

    async def ask_for(self, prompt: str, *, crash_count: int = 0) -> Answer:
        """Ask on behalf of a job."""
        body = b'{"prompt": "%s", "max_tokens": 1}' % prompt.encode()
        return await asyncio.wait_for(self.traffic.for_job(claimed(prompt, crash_count)).generate(ROUTE, body, None), 5)

    async def ask(self, prompt: str, *, max_tokens: int = 1) -> Answer:
        body = b'{"prompt": "%s", "max_tokens": %d}' % (prompt.encode(), max_tokens)
        return await asyncio.wait_for(self.traffic.generate(ROUTE, body, None), 5)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await self.polled()

    async def until_restarted(self, reason: str, times: int) -> None:
        await self.until(lambda: self.figure("bitladder_engine_restarts_total", reason=reason) == times)

    async def polled(self) -> None:
        await asyncio.sleep(0.01)

    def figure(self, name: str, **labels: str) -> float:
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value(name, {"model": "m", "tier": "int4", **labels}) or 0.0


@pytest.fixture
async def watch(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Watched]]:
    monkeypatch.setattr(engine_watch, "POLL_INTERVAL_S", 0.001)
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", 0.05)
    made: list[Watched] = []

    def make(engine: EchoEngine, **settings: object) -> Watched:
        made.append(Watched(engine, **settings))
        return made[-1]

    yield make
    for watched in made:
        watched.task.cancel()


async def test_an_engine_is_tried_again_until_it_starts_whatever_goes_wrong(watch: Callable[..., Watched]) -> None:
    watched = watch(Reluctant(4))

    await watched.until(lambda: watched.readiness == [True])

    assert watched.figure("bitladder_engine_start_reduced") == 1
    assert watched.figure("bitladder_engine_restarts_total", reason="gone") == 0


async def test_an_engine_that_is_lost_is_started_again_and_loses_what_it_ran(watch: Callable[..., Watched]) -> None:
    watched = watch(EchoEngine(FAST))
    await watched.until(lambda: watched.readiness == [True])

    ends = await asyncio.gather(watched.ask("a", max_tokens=50_000), watched.ask("echo:crash"), return_exceptions=True)

    assert [type(end) for end in ends] == [EngineLostError] * 2
    await watched.until(lambda: watched.readiness == [True, False, True])
    assert (await watched.ask("a")).status == 200
    assert watched.figure("bitladder_engine_restarts_total", reason="gone") == 1


async def test_an_engine_that_gives_no_token_any_more_is_started_again(watch: Callable[..., Watched]) -> None:
    watched = watch(EchoEngine(FAST))
    await watched.until(lambda: watched.readiness == [True])

    ends = await asyncio.gather(watched.ask("a", max_tokens=50_000), watched.ask("echo:hang"), return_exceptions=True)

    assert [type(end) for end in ends] == [EngineLostError] * 2
    await watched.until(lambda: watched.readiness == [True, False, True])
    assert (await watched.ask("a")).status == 200
    assert watched.figure("bitladder_engine_restarts_total", reason="hung") == 1


async def test_an_engine_that_breaks_too_often_is_started_again_once_what_it_runs_is_done(
    watch: Callable[..., Watched],
) -> None:
    watched = watch(EchoEngine(FAST))
    await watched.until(lambda: watched.readiness == [True])
    fine = asyncio.create_task(watched.ask("a", max_tokens=200))

    for _ in range(5):
        with pytest.raises(EngineFaultError):
            await watched.ask("echo:fault")

    assert (await fine).status == 200
    await watched.until(lambda: watched.readiness == [True, False, True])
    assert watched.figure("bitladder_engine_restarts_total", reason="faults") == 1


async def test_what_still_runs_when_an_engine_is_restarted_for_its_faults_is_not_isolated(
    watch: Callable[..., Watched],
) -> None:
    watched = watch(EchoEngine(FAST), drain_grace_s=0.1)
    await watched.until(lambda: watched.readiness == [True])
    innocent = asyncio.create_task(watched.ask("a", max_tokens=50_000))

    for _ in range(5):
        with pytest.raises(EngineFaultError):
            await watched.ask("echo:fault")

    with pytest.raises(EngineBusyError):
        await innocent


async def test_faults_below_the_ratio_restart_nothing(watch: Callable[..., Watched]) -> None:
    watched = watch(EchoEngine(FAST), fault_ratio=0.5)
    await watched.until(lambda: watched.readiness == [True])

    for _ in range(10):
        assert (await watched.ask("a")).status == 200
        with pytest.raises(EngineFaultError):
            await watched.ask("echo:fault")
        await watched.polled()

    assert watched.readiness == [True]


async def test_an_engine_that_breaks_after_every_start_gets_no_jobs_until_it_answers_a_probe(
    watch: Callable[..., Watched],
) -> None:
    engine = Breakable(FAST)
    watched = watch(engine)
    engine.is_broken = True

    async def feed() -> None:
        while True:
            if watched.readiness[-1:] == [True]:
                with pytest.raises(EngineError):
                    await watched.ask("a")
            await watched.polled()

    feeding = asyncio.create_task(feed())
    await watched.until(lambda: watched.figure("bitladder_breaker_state") == 2)
    assert watched.readiness[-1] is False
    assert watched.figure("bitladder_engine_restarts_total", reason="faults") == breaker.MAX_FAILURES
    starts = len(watched.readiness)
    await asyncio.sleep(0.2)  # half-open at least once, and the engine's answer to that is a fault
    assert len(watched.readiness) == starts

    feeding.cancel()
    engine.is_broken = False
    await watched.until(lambda: watched.readiness[-1])
    assert watched.figure("bitladder_breaker_state") == 0
    assert (await watched.ask("a")).status == 200


@pytest.mark.parametrize(("prompt", "reason"), [("echo:crash", "gone"), ("echo:hang", "hung")])
@pytest.mark.parametrize(("serves", "state"), [(True, 0), (False, 2)])
async def test_losses_count_against_an_engine_only_when_it_served_nothing_since_its_start(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch, prompt: str, reason: str, serves: bool, state: int
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", 60.0)
    watched = watch(EchoEngine(FAST))
    await watched.until(lambda: watched.readiness == [True])

    for round_ in range(1, breaker.MAX_FAILURES + 1):
        if serves:
            await watched.ask("a")
        with pytest.raises(EngineLostError):
            await watched.ask(prompt)
        await watched.until_restarted(reason, round_)
        if round_ < breaker.MAX_FAILURES or serves:
            await watched.until(lambda: watched.readiness[-1])

    await watched.until(lambda: watched.figure("bitladder_breaker_state") == state)
    assert watched.readiness[-1] is serves


@pytest.mark.parametrize(("blame", "restarts"), [(Blame.ENGINE, 1), (Blame.PROMPT, 0), (Blame.NOBODY, 0), (None, 0)])
async def test_an_engine_that_answers_the_probe_is_started_again_for_faults_that_were_its_own_only(
    watch: Callable[..., Watched], blame: Blame | None, restarts: int
) -> None:
    watched = watch(EchoEngine(FAST))
    await watched.until(lambda: watched.readiness == [True])
    watched.blame = blame

    for _ in range(10):
        with pytest.raises(EngineFaultError):
            await watched.ask_for("echo:fault")
    for _ in range(30):
        await watched.polled()
        await watched.until(lambda: watched.readiness[-1])

    assert watched.figure("bitladder_engine_restarts_total", reason="faults") == restarts


async def test_an_engine_that_answers_no_request_is_started_again_whatever_became_of_the_jobs(
    watch: Callable[..., Watched],
) -> None:
    engine = Breakable(FAST)
    watched = watch(engine)
    await watched.until(lambda: watched.readiness == [True])
    watched.blame, engine.is_broken = Blame.PROMPT, True

    for number in range(5):
        with pytest.raises(EngineFaultError):
            await watched.ask_for(f"fine {number}")

    await watched.until_restarted("faults", 1)


@pytest.mark.parametrize(("others", "state"), [(1, 0), (0, 2)])
async def test_an_isolated_job_explains_that_the_engine_crashes_before_all_others_but_not_many_in_a_row(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch, others: int, state: int
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", 60.0)
    watched = watch(EchoEngine(FAST))
    await watched.until(lambda: watched.readiness == [True])

    for loss in range(1, engine_watch.MAX_ISOLATED_CRASHES + breaker.MAX_FAILURES + 1):
        with pytest.raises(EngineLostError):
            await watched.ask_for("echo:crash", crash_count=1)
        await watched.until_restarted("gone", loss)
        await watched.until(lambda: watched.readiness[-1] or watched.figure("bitladder_breaker_state") == 2)
        if others and loss % engine_watch.MAX_ISOLATED_CRASHES == 0:
            await watched.ask("a")

    await watched.until(lambda: watched.figure("bitladder_breaker_state") == state)
