"""The echo engine by a service curve: requests share its speed."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.worker_section import EchoSettings
from workers.engines.echo import EchoEngine

CURVE = {
    "source": "a test",
    "device": "none",
    "version": "0",
    "mode": "made up",
    "input_tokens": 4,
    "points": [
        {"concurrency": 1, "ttft_s": 0.05, "time_per_token_s": 0.01},
        {"concurrency": 2, "ttft_s": 0.05, "time_per_token_s": 0.02},
    ],
}


@pytest.fixture
def engine(tmp_path: Path) -> EchoEngine:
    (tmp_path / "curves.json").write_text(json.dumps({"curves": [CURVE | {"name": "int4"}]}))
    return EchoEngine(EchoSettings(curves=str(tmp_path / "curves.json"), ttft_ms=1e6), "int4")


async def took_s(engine: EchoEngine, tokens: int, prompt: str = "a b c d") -> float:
    body = {"model": "m", "prompt": prompt, "max_tokens": tokens}
    start_s = time.perf_counter()
    await engine.generate("/v1/completions", json.dumps(body).encode(), None)
    return time.perf_counter() - start_s


async def test_requests_share_the_speed_and_are_faster_again_when_one_has_ended(engine: EchoEngine) -> None:
    long_s, short_s = await asyncio.gather(took_s(engine, 31), took_s(engine, 6))

    # The short one: its first token's time, and five tokens at half the speed. Meanwhile the long one had as much.
    assert 0.15 <= short_s < 0.3
    assert 0.42 <= long_s < 0.6  # 0.7 were it not faster then


async def test_the_first_token_of_a_stream_comes_after_the_curves_time_for_the_prompts_length(
    engine: EchoEngine,
) -> None:
    async def take(chunk: bytes) -> None:
        del chunk

    body = {"model": "m", "prompt": "a b c d e f g h", "max_tokens": 2}
    answer = await engine.generate("/v1/completions", json.dumps(body).encode(), take)

    assert answer.ttft_s is not None
    assert 0.1 <= answer.ttft_s < 0.2


def test_a_file_without_a_curve_of_the_tiers_name_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    (tmp_path / "curves.json").write_text(json.dumps({"curves": [CURVE | {"name": "a10g"}]}))

    with pytest.raises(ConfigError, match="must have a curve named 'fp8', got a10g"):
        EchoEngine(EchoSettings(curves=str(tmp_path / "curves.json")), "fp8")
