"""The echo engine replies as vLLM does: the same fields, types, reasons and refusals, for the same requests.

vllm.json holds what vLLM replied. With the marker `vllm` it is held against a real one;
`RECORD_VLLM=1 python -m pytest -m vllm tests/workers/engines/echo_model` writes it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bitladder.settings.models_section import TierSettings
from bitladder.settings.worker_section import EchoSettings, VllmSettings
from tests.conftest import ROOT
from tests.workers.engines.echo_model.cases import ANSWERED, MAX_MODEL_LEN, REFUSED
from tests.workers.engines.echo_model.shapes import replied
from workers.engines.base import Engine
from workers.engines.echo import EchoEngine
from workers.engines.vllm_server import VllmServer

RECORD = Path(__file__).parent / "vllm.json"
CASES = ANSWERED | REFUSED
RECORDED: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
ARGS = ("--max-model-len", str(MAX_MODEL_LEN), "--enforce-eager", "--max-num-seqs", "8")
TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.parametrize("name", CASES)
async def test_the_echo_engine_replies_as_vllm_does(name: str) -> None:
    echo = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9, max_model_len=MAX_MODEL_LEN))

    assert await replied(echo, *CASES[name]) == RECORDED[name]


def test_what_vllm_replied_is_there_for_each_request_and_no_other() -> None:
    assert set(RECORDED) == set(CASES)
    assert all(RECORDED[name].get("status") == 400 for name in REFUSED)
    assert not any("status" in RECORDED[name] for name in ANSWERED)


@contextlib.asynccontextmanager
async def started_vllm() -> AsyncIterator[VllmServer]:
    """Run a vLLM with the example's int8, which calls tools."""
    python = ROOT / ".venv-engine" / "bin" / "python"
    if not python.exists():
        message = "there is no .venv-engine: `make engine-env checkpoints` makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    tier = TierSettings(name="int8", price_per_hour=1, checkpoint="{cache}/smollm2/int8")
    vllm = VllmServer("smollm2", tier, VllmSettings(python=str(python), args=ARGS + TOOLS, env=ENVIRONMENT))
    try:
        await vllm.start()
        yield vllm
    finally:
        await vllm.stop()


@pytest.mark.vllm
async def test_vllm_replies_as_it_did_when_its_replies_were_recorded() -> None:
    async with started_vllm() as vllm:
        replies = await _all(vllm)
    if os.environ.get("RECORD_VLLM"):
        RECORD.write_text(json.dumps(replies, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    assert replies == json.loads(RECORD.read_text(encoding="utf-8"))


async def _all(engine: Engine) -> dict[str, Any]:
    return {name: await asyncio.wait_for(replied(engine, *case), 120) for name, case in CASES.items()}
