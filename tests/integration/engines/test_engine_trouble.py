"""Engines in trouble, as users meet them: they hang, loop, break and come back (docs/operating.md has the rules)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from openai import APIStatusError, OpenAI

from bitladder.client import Client
from tests.conftest import ROOT, Stack, free_port, wait_until
from tests.fake_vllm import install

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
LOOP = BODY | {"prompt": "an echo:loop", "max_tokens": 200}
THROWING = """
import sys
from workers.run import main
from workers.pump import Pump

async def step(self):
    raise ValueError("a defect in the main loop")

Pump._step = step
sys.argv = ["worker", "--tier", "int4"]
sys.exit(main())
"""


def run(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    return client.wait(client.submit(body)["id"], timeout_s=30)


def figure(port: int, line: str) -> float:
    """Read one line of a worker's metrics."""
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line)), 0.0)


def test_a_tier_whose_engine_keeps_breaking_is_left_alone_and_comes_back(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    faults, port = tmp_path / "faults", free_port()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    stack = make_stack()
    stack.intake()
    stack.worker("int8")
    stack.environment |= {
        "BITLADDER_WORKER__ENGINE": "vllm",
        "BITLADDER_WORKER__METRICS_PORT": str(port),
        "BITLADDER_VLLM__PYTHON": install(tmp_path),
        "BITLADDER_VLLM__ARGS": "[]",
        "BITLADDER_VLLM__ENV": f'{{FAKE_FAULTS = "{faults}"}}',
        "BITLADDER_MODELS__SMOLLM2__TIERS__INT4__CHECKPOINT": str(tmp_path),
    }
    stack.worker("int4")
    faults.touch()

    with Client(stack.url) as client:
        first = [client.wait(job["id"], timeout_s=30) for job in [client.submit(BODY) for _ in range(40)]]
        wait_until(lambda: figure(port, "bitladder_breaker_state") == 2, "the breaker is open")
        assert stack.live("int4") == 0
        then = [run(client, BODY) for _ in range(5)]
        faults.unlink()
        wait_until(lambda: stack.live("int4") == 1, "int4 is trusted again", 40)
        again = run(client, BODY)

    assert {(job["status"], job["tier"]) for job in first + then} == {("finished", "int8")}
    assert max(job["attempts"] for job in first) == 2
    assert {job["attempts"] for job in then} == {1}
    assert (again["status"], again["tier"]) == ("finished", "int4")
    assert figure(port, 'bitladder_engine_restarts_total{model="smollm2",reason="faults"') >= 1


def test_numbers_that_are_none_and_empty_answers_escalate_streamed_or_not(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    port = free_port()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    stack = make_stack()
    stack.intake()
    stack.worker("int8")
    stack.environment |= {
        "BITLADDER_WORKER__ENGINE": "vllm",
        "BITLADDER_WORKER__METRICS_PORT": str(port),
        "BITLADDER_WORKER__FAULT_RATIO": "1",
        "BITLADDER_VLLM__PYTHON": install(tmp_path),
        "BITLADDER_VLLM__ARGS": "[]",
        "BITLADDER_MODELS__SMOLLM2__TIERS__INT4__CHECKPOINT": str(tmp_path),
    }
    stack.worker("int4")
    asked = [("unwritable", False), ("unwritable", True), ("null", True), ("nan", False), ("nan", True)]

    with Client(stack.url) as client:
        jobs = [
            run(client, BODY | {"prompt": prompt, "logprobs": 1, "stream": stream})
            for prompt, stream in [*asked, ("empty", False), ("empty", True), ("sound", False)]
        ]

    assert [(job["status"], job["tier"], job["attempts"]) for job in jobs] == [
        *[("finished", "int8", 2)] * 7,
        ("finished", "int4", 1),
    ]
    assert figure(port, 'bitladder_engine_corrupted_total{model="smollm2",seen_by="answer"') == len(asked)
    assert figure(port, 'bitladder_outputs_degenerate_total{kind="empty"') == 2


def test_a_token_loop_escalates_to_the_top_where_it_is_delivered(make_stack: Callable[..., Stack]) -> None:
    port = free_port()
    stack = make_stack(BITLADDER_WORKER__METRICS_PORT=str(port))
    stack.intake()
    stack.worker("int4")
    del stack.environment["BITLADDER_WORKER__METRICS_PORT"]

    with Client(stack.url) as client:
        alone = run(client, LOOP)  # nobody does better
        for tier in ("int8", "fp8"):
            stack.worker(tier)
        looped = run(client, LOOP)
        capped = stack.http.post("/v1/completions", json=LOOP, headers={"X-Max-Tier": "int8"})
        streamed, fine = run(client, LOOP | {"stream": True}), run(client, BODY | {"max_tokens": 200})

    assert (alone["status"], alone["tier"], alone["attempts"]) == ("finished", "int4", 1)
    assert (looped["status"], looped["tier"], looped["attempts"]) == ("finished", "fp8", 3)
    assert (capped.status_code, capped.headers["x-tier"]) == (200, "int8")
    assert capped.json()["choices"][0]["text"].startswith("again again")
    # Its tokens were seen: it is only counted. And who asks for a repetition gets it.
    assert (streamed["status"], streamed["tier"], streamed["attempts"]) == ("finished", "int4", 1)
    assert (fine["status"], fine["tier"], fine["attempts"]) == ("finished", "int4", 1)
    assert figure(port, 'bitladder_outputs_degenerate_total{kind="loop"') == 4


def test_openais_client_sends_nothing_again_that_has_had_all_its_attempts(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    late = {"X-Deadline-Ms": "300"}
    ends = [("echo:fault", {}, 502), ("echo:crash", {}, 500), ("echo:busy", late, 504)]

    told = []
    with OpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
        for stream in (False, True):
            for prompt, headers, _ in ends:
                told.append(_end(client, prompt, headers, stream))
                client.completions.create(model="smollm2", prompt="fine", max_tokens=1)

    assert client.max_retries > 0
    assert [error.status_code for error in told] == [status for _, _, status in ends] * 2
    assert {error.response.headers["X-Should-Retry"] for error in told} == {"false"}
    assert len(store.keys("rq:job:*")) == 2 * len(told)


def _end(client: OpenAI, prompt: str, headers: dict[str, str], stream: bool) -> APIStatusError:
    with pytest.raises(APIStatusError) as raised:
        client.completions.create(model="smollm2", prompt=prompt, max_tokens=1, stream=stream, extra_headers=headers)
    return raised.value


def test_without_the_output_check_a_loop_is_delivered_where_it_arose(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_WORKER__CHECK_OUTPUT="false")
    stack.intake()
    stack.worker("int4")

    with Client(stack.url) as client:
        looped = run(client, LOOP)

    assert (looped["status"], looped["tier"], looped["attempts"]) == ("finished", "int4", 1)


def test_an_engine_that_hangs_is_replaced_and_what_it_ran_is_run_again(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_WORKER__HANG_S="1", BITLADDER_ECHO__TTFT_MS="200")
    stack.intake()
    stack.worker("int4")

    with Client(stack.url) as client:
        beside, hanging = client.submit(BODY | {"max_tokens": 200}), client.submit(BODY | {"prompt": "echo:hang"})
        done, over = client.wait(beside["id"], timeout_s=30), client.wait(hanging["id"], timeout_s=30)

    assert (done["status"], done["attempts"]) == ("finished", 1)
    assert (over["status"], over["error"]["code"]) == ("failed", "poison")


def test_a_worker_whose_main_loop_throws_says_so_with_its_status(store: redis.Redis, redis_url: str) -> None:
    stack = Stack(redis_url)
    command = [sys.executable, "-c", THROWING]
    done = subprocess.run(command, env=stack.environment, cwd=ROOT, timeout=30, capture_output=True, check=False)
    stack.stop()

    assert done.returncode == 1
    (line,) = [json.loads(text) for text in done.stderr.splitlines() if b'"critical"' in text]
    assert "a defect in the main loop" in line["exception"]
    assert line.items() >= {"event": "uncaught exception", "model": "smollm2", "tier": "int4"}.items()
    assert line["worker"].startswith("smollm2.int4.")
    assert store.zcard("bl:workers") == 0  # nobody has to wait for its leases to run out
