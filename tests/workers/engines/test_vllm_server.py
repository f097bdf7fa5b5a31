"""workers/engines/vllm_server.py and http.py, on a server that has vLLM's troubles (tests/fake_vllm.py)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from bitladder.settings.models_section import TierSettings
from bitladder.settings.worker_section import VllmSettings, WorkerSettings
from tests.fake_vllm import install
from workers.engine_health.traffic import Traffic
from workers.engine_health.watch import EngineWatch
from workers.engines.base import Answer
from workers.engines.errors import EngineCorruptedError, EngineFaultError, EngineLostError
from workers.engines.vllm_server import VllmServer
from workers.metrics.worker_metrics import WorkerMetrics

Make = Callable[..., VllmServer]
ROUTE = "/v1/completions"


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 4096}', encoding="utf-8")
    servers: list[VllmServer] = []

    def made(*args: str, tool_call_parser: str = "", **environment: str) -> VllmServer:
        settings = VllmSettings(python=install(tmp_path), args=args, env=environment, start_timeout_s=30)
        tier = TierSettings(name="int4", checkpoint=str(tmp_path))
        servers.append(VllmServer("m", tier, settings, tool_call_parser=tool_call_parser))
        return servers[-1]

    yield made
    for server in servers:
        await server.stop()


async def ask(server: VllmServer, prompt: str, *, max_tokens: int = 2, stream: bool = False) -> Answer:
    async def ignore(chunk: bytes) -> None:
        assert chunk

    body = {"prompt": prompt, "max_tokens": max_tokens, "stream": stream}
    return await asyncio.wait_for(server.generate(ROUTE, msgspec.json.encode(body), ignore if stream else None), 20)


async def ends_within(server: VllmServer, limit_s: float) -> bool:
    """Wait until the process has ended."""
    for _ in range(int(limit_s * 10)):
        if not await server.is_healthy():
            return True
        await asyncio.sleep(0.1)
    return False


async def test_an_engine_that_ends_is_lost_with_all_that_was_in_it(make: Make) -> None:
    server = make()
    await server.start()
    beside = [asyncio.create_task(ask(server, "a", max_tokens=10_000, stream=stream)) for stream in (False, True)]
    await asyncio.sleep(0.1)  # both are in the engine

    ends = await asyncio.gather(ask(server, "crash"), *beside, return_exceptions=True)

    assert [type(end) for end in ends] == [EngineLostError] * 3
    assert await ends_within(server, 10)
    await server.start()
    assert (await ask(server, "a")).status == 200


async def test_an_engine_that_answers_500_because_its_core_died_is_lost(make: Make) -> None:
    server = make()
    await server.start()

    with pytest.raises(EngineLostError):
        await ask(server, "dead")


@pytest.mark.parametrize(
    ("prompt", "stream", "error"),
    [
        ("fault", False, EngineFaultError),
        ("nan", False, EngineCorruptedError),
        ("nan", True, EngineCorruptedError),
        ("null", False, EngineCorruptedError),
        ("null", True, EngineCorruptedError),
        ("unwritable", False, EngineCorruptedError),
        ("unwritable", True, EngineCorruptedError),
    ],
)
async def test_one_broken_request_is_not_the_engine_s_end(
    make: Make, prompt: str, stream: bool, error: type[EngineFaultError]
) -> None:
    server = make()
    await server.start()

    with pytest.raises(EngineFaultError) as raised:
        await ask(server, prompt, stream=stream)

    assert type(raised.value) is error
    assert (await ask(server, "a", stream=stream)).status == 200


async def test_the_engine_s_own_figures_are_read(make: Make) -> None:
    server = make()
    await server.start()
    before = await server.load()
    await ask(server, "corrupt", max_tokens=3)

    after = await server.load()

    assert before.tokens is not None
    assert after.tokens == before.tokens + 3
    assert (before.corrupted, after.corrupted) == (0, 1)


async def test_an_engine_that_finds_too_little_memory_starts_with_less_and_stays_there(make: Make) -> None:
    server = make("--gpu-memory-utilization", "0.8", FAKE_FREE="0.6", FAKE_LENGTH="1500")
    with capture_logs() as logs:
        said = await server.start()
        again = await server.start()

    assert said == again == "--gpu-memory-utilization 0.578 --max-model-len 1500"
    assert (await ask(server, "a")).status == 200
    steps = [line["args"] for line in logs if line["event"] == "engine starts with less"]
    assert steps == ["--gpu-memory-utilization 0.68", "--gpu-memory-utilization 0.578", said]


async def test_an_engine_that_would_need_too_much_less_does_not_start_and_says_why(make: Make) -> None:
    server = make("--gpu-memory-utilization", "0.13", FAKE_FREE="0.01")

    with pytest.raises(EngineFaultError, match="less than desired GPU memory utilization"):
        await server.start()


async def test_an_engine_that_breaks_on_its_first_request_does_not_count_as_started(make: Make, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.touch()
    server = make(FAKE_FAULTS=str(faults))

    with pytest.raises(EngineFaultError):
        await server.start()
    assert not await server.is_healthy()

    faults.unlink()
    await server.start()
    assert await server.is_healthy()


async def test_a_stopped_engine_is_killed_and_started_again_in_seconds(make: Make) -> None:
    server = make()
    with capture_logs() as logs:
        await server.start()
        running = asyncio.create_task(ask(server, "a", max_tokens=10_000))
        await asyncio.sleep(0.1)
        os.kill(next(line["pid"] for line in logs if line["event"] == "engine started"), signal.SIGSTOP)
        start = time.monotonic()
        await server.start()

    assert time.monotonic() - start < 10
    with pytest.raises(EngineLostError):
        await running
    assert (await ask(server, "a")).status == 200


async def test_a_core_that_hangs_behind_a_healthy_server_is_seen_by_its_figures(make: Make) -> None:
    server, readiness = make(), asyncio.Queue[bool]()
    settings = WorkerSettings().model_copy(update={"hang_s": 0.5})
    metrics = WorkerMetrics("m", "int4")
    traffic = Traffic(server, metrics, settings.hang_s)
    watch = EngineWatch(traffic, settings, metrics, readiness.put, lambda load: None)
    watching = asyncio.create_task(watch.run())
    assert await asyncio.wait_for(readiness.get(), 20)

    hang = b'{"prompt": "hang"}'
    ends = [traffic.generate(ROUTE, body, None) for body in (hang, b'{"prompt": "a", "max_tokens": 10000}')]
    lost = await asyncio.wait_for(asyncio.gather(*ends, return_exceptions=True), 20)

    assert [type(end) for end in lost] == [EngineLostError] * 2
    assert [await asyncio.wait_for(readiness.get(), 20) for _ in range(2)] == [False, True]
    assert (await ask(server, "a")).status == 200
    watching.cancel()


async def test_a_stream_that_stalls_while_others_go_on_is_broken_off(make: Make) -> None:
    server = make()
    await server.start()
    traffic = Traffic(server, WorkerMetrics("m", "int4"), 0.3)

    async def take(chunk: bytes) -> None:
        assert chunk

    async def poll() -> None:
        while True:
            traffic.observe(await server.load())
            await asyncio.sleep(0.05)

    polling = asyncio.create_task(poll())
    beside = asyncio.create_task(traffic.generate(ROUTE, b'{"prompt": "a", "max_tokens": 10000}', None))
    with pytest.raises(EngineFaultError, match="no token") as raised:
        await asyncio.wait_for(traffic.generate(ROUTE, b'{"prompt": "stall", "stream": true}', take), 20)

    assert not isinstance(raised.value, EngineLostError)
    assert not beside.done()
    beside.cancel()
    polling.cancel()


async def test_the_engine_is_not_told_our_settings(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITLADDER_REDIS__PASSWORD", "a secret")
    server = make()

    with capture_logs() as logs:
        await server.start()
    pid = next(line["pid"] for line in logs if line["event"] == "engine started")
    environment = _environment(pid)

    assert b"VLLM_HTTP_TIMEOUT_KEEP_ALIVE=86400" in environment  # longer than any answer takes to be read
    assert b"BITLADDER_" not in environment


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


WITH_TOOLS = {
    "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
    "tools": [{"type": "function", "function": {"name": "weather"}}],
}


async def chat(server: VllmServer, *, stream: bool = False) -> tuple[int, dict[str, Any]]:
    async def ignore(chunk: bytes) -> None:
        del chunk

    body = msgspec.json.encode(WITH_TOOLS | {"stream": stream})
    answer = await server.generate("/v1/chat/completions", body, ignore if stream else None)
    return answer.status, msgspec.json.decode(answer.body)


async def test_tools_are_taken_with_the_parser_that_the_model_s_settings_name(make: Make) -> None:
    server = make(tool_call_parser="xlam")
    await server.start()

    status, answer = await chat(server)

    assert status == 200
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "xlam"  # the parser


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_without_a_parser_are_refused_by_the_name_of_our_setting(make: Make, stream: bool) -> None:
    server = make()
    await server.start()

    status, answer = await chat(server, stream=stream)

    assert status == 400
    assert answer["error"]["code"] == "tools_not_configured"
    assert answer["error"]["param"] == "tools"
    assert "models.m.tool_call_parser" in answer["error"]["message"]


async def test_a_parser_among_the_tier_s_own_arguments_goes_before(make: Make) -> None:
    server = make("--tool-call-parser", "hermes", tool_call_parser="xlam")
    await server.start()

    _, answer = await chat(server)

    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "hermes"
