"""What a worker shows of its vLLM: its metrics while it answers, its output where asked for, and how it ended."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import Stack, free_port, wait_until
from tests.fake_vllm import install


def test_an_engine_s_own_metrics_are_on_its_worker_s_port_while_it_answers_and_its_end_is_logged(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    port, weights = free_port(), tmp_path / "config.json"
    weights.write_text("{}", encoding="utf-8")
    stack = make_stack(
        BITLADDER_LOG__LEVEL="debug",
        BITLADDER_WORKER__ENGINE="vllm",
        BITLADDER_WORKER__METRICS_PORT=str(port),
        BITLADDER_VLLM__PYTHON=install(tmp_path),
        BITLADDER_VLLM__ARGS="[]",
        BITLADDER_VLLM__ENV="{}",
        BITLADDER_MODELS__SMOLLM2__TIERS__INT4__CHECKPOINT=str(tmp_path),
    )
    stack.intake()
    with (tmp_path / "log").open("wb") as stack.output:
        stack.worker("int4")

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]

    def metrics(accept: str = "", query: str = "") -> str:
        url = f"http://127.0.0.1:{port}/metrics{query}"
        return httpx2.get(url, headers={"Accept": accept}).raise_for_status().text

    line = 'vllm:generation_tokens_total{engine="0",model="smollm2",model_name="fake",tier="int4"}'
    wait_until(lambda: line in metrics(), "vLLM's metrics are shown")
    assert line in metrics("application/openmetrics-text")
    # The article's names are copies, on request.
    assert "quant_router" not in metrics()
    copies = metrics(query="?names=article")
    for part in ("kv_cache_usage{", "nan_ratio{", "upstream_errors_total{"):
        assert f"quant_router_{part}" in copies, part
    of_intake = stack.http.get("/metrics?names=article").text
    depths = re.findall(r"^(?:bitladder|quant_router)_queue_depth{.*} (\S+)$", of_intake, re.MULTILINE)
    assert depths
    assert len(depths) % 2 == 0
    weights.unlink()  # so that it cannot start again
    (pid,) = [entry["pid"] for entry in lines() if entry["event"] == "engine started"]
    os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: "vllm:" not in metrics(), "vLLM's metrics are gone")
    wait_until(lambda: any(entry["event"] == "engine did not start" for entry in lines()), "it does not come back")
    stack.stop()

    assert [entry for entry in lines() if not {"model", "tier", "worker"} <= entry.keys()] == []
    (end,) = [entry for entry in lines() if entry["event"] == "engine ended by itself"]
    assert end["status"] == -9
    output = [entry["line"] for entry in lines() if entry["event"] == "engine output"]
    assert any("fake vLLM starts" in text for text in output)
