"""workers/engines/echo.py: what it answers, how fast, and when it breaks."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from bitladder.settings.worker_section import EchoSettings
from workers.engines.echo import EchoEngine
from workers.engines.errors import EngineBusyError, EngineCorruptedError, EngineFaultError, EngineLostError
from workers.output_check import fault_in

ROUTE = "/v1/completions"
BODY = b'{"model": "m", "prompt": "aa bb", "max_tokens": 6}'


async def stream_s(engine: EchoEngine, taking_s: float) -> float:
    """How long a stream takes whose reader needs so long for each token."""

    async def take(chunk: bytes) -> None:
        assert chunk.startswith(b"data: {")
        await asyncio.sleep(taking_s)

    start = time.perf_counter()
    await engine.generate(ROUTE, BODY, take)
    return time.perf_counter() - start


async def test_a_slow_reader_does_not_slow_the_tokens_behind() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=20))

    at_once, slowly = await stream_s(engine, 0), await stream_s(engine, 0.04)

    # Five gaps of 50 ms and the last token's 40 ms; added up they would be 1.8 times as long.
    assert slowly < 1.5 * at_once


async def test_the_same_seed_breaks_the_same_jobs() -> None:
    async def broken(seed: int) -> list[int]:
        engine, faults = EchoEngine(EchoSettings(ttft_ms=0, fault_ratio=0.3, seed=seed, tokens_per_s=1e9)), []
        for number in range(200):
            try:
                await engine.generate(ROUTE, BODY, None)
            except EngineFaultError:
                faults.append(number)
        return faults

    first = await broken(1)

    assert first == await broken(1) != await broken(2)
    assert len(first) == pytest.approx(60, abs=25)


async def test_a_crash_takes_down_all_that_is_in_flight_until_the_engine_is_started_again() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=20, tokens_per_s=50))
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(chunk)

    long = b'{"model": "m", "prompt": "aa bb", "max_tokens": 500}'
    crash = b'{"model": "m", "prompt": "aa echo:crash"}'
    ends = await asyncio.wait_for(
        asyncio.gather(
            engine.generate(ROUTE, long, None),
            engine.generate(ROUTE, long, take),
            engine.generate(ROUTE, crash, None),
            return_exceptions=True,
        ),
        5,
    )

    assert [type(end) for end in ends] == [EngineLostError] * 3
    assert not await engine.is_healthy()
    with pytest.raises(EngineBusyError):
        await engine.generate(ROUTE, BODY, None)
    await engine.start()
    assert await engine.is_healthy()
    assert (await engine.generate(ROUTE, BODY, None)).status == 200


async def test_a_hang_leaves_all_requests_without_a_token_until_the_engine_is_restarted() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=1, tokens_per_s=1000))
    hang = asyncio.create_task(engine.generate(ROUTE, b'{"model": "m", "prompt": "echo:hang"}', None))
    beside = asyncio.create_task(engine.generate(ROUTE, b'{"model": "m", "prompt": "a", "max_tokens": 20}', None))
    before = (await engine.load()).tokens

    done, _ = await asyncio.wait({hang, beside}, timeout=0.2)

    assert done == set()
    assert await engine.is_healthy()
    after = (await engine.load()).tokens
    assert before is not None
    assert before < (after or 0)
    assert (await engine.load()).tokens == after  # and from here on nothing comes
    await engine.start()
    assert [type(end) for end in await asyncio.gather(hang, beside, return_exceptions=True)] == [EngineLostError] * 2
    assert (await engine.generate(ROUTE, BODY, None)).status == 200


async def test_it_gives_numbers_that_are_none_and_loops_when_asked_to() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))

    with pytest.raises(EngineCorruptedError):
        await engine.generate(ROUTE, b'{"model": "m", "prompt": "echo:nan"}', None)
    loop = b'{"model": "m", "prompt": "an echo:loop", "max_tokens": 200}'
    answer = await engine.generate(ROUTE, loop, None)

    assert fault_in(answer.body, loop) == "loop"


async def test_a_stream_that_was_handing_a_token_over_when_the_engine_crashed_does_not_go_on() -> None:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))  # every token is late: nothing waits

    async def take(chunk: bytes) -> None:
        with pytest.raises(EngineLostError):
            await engine.generate(ROUTE, b'{"model": "m", "prompt": "echo:crash"}', None)
        await engine.start()

    with pytest.raises(EngineLostError):
        await asyncio.wait_for(engine.generate(ROUTE, BODY, take), 5)


@pytest.mark.parametrize(
    "body", [b'{"prompt": "x", "seed": 1e400}', b'{"prompt": "\\ud800"}', b'{"\xff": 1}', b"[1]", b""]
)
async def test_what_no_engine_can_read_is_the_requests_fault(body: bytes) -> None:
    answer = await EchoEngine(EchoSettings()).generate("/v1/completions", body, None)

    assert answer.status == 400


async def test_every_chunk_of_an_answer_has_its_id_and_the_next_answer_another_one() -> None:
    engine, ids = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9)), []

    async def take(chunk: bytes) -> None:
        ids.append(msgspec.json.decode(chunk.removeprefix(b"data: "))["id"])

    for _ in range(2):
        await engine.generate(ROUTE, BODY, take)

    assert len(ids) == 12
    assert len(set(ids[:6])) == len(set(ids[6:])) == 1
    assert ids[0] != ids[6]
