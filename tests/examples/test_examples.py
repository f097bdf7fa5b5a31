"""Every example runs as its own page says: against a stack with the echo engine, from the project's folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import redis

from tests.conftest import ROOT, Stack, wait_until

EXAMPLES = ROOT / "examples"
TIERS = ("int4", "int8", "fp8")


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    """`bitladder up --engine echo`, with a worker per tier."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    stack = Stack(redis_url)
    stack.start("up", "--engine", "echo")
    wait_until(lambda: is_serving(stack), "the stack is up", timeout_s=120)
    yield stack
    stack.stop()


def is_serving(stack: Stack) -> bool:
    try:
        return stack.http.get("/readyz").status_code == 200 and all(stack.live(tier) for tier in TIERS)
    except httpx2.HTTPError:
        return False


def run(stack: Stack, name: str, *arguments: str, text: str = "") -> str:
    """Run one example as its page says, and return what it prints."""
    environment = stack.environment | {"BITLADDER_URL": stack.url}
    command = [sys.executable, f"examples/{name}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openais_client_asks_for_a_tier_and_is_told_which_it_got(stack: Stack) -> None:
    printed = run(stack, "openai_client.py")

    assert "tier: int8\n" in printed
    assert "raised to a minimum" in printed
    assert "stream: What a day" in printed


def test_a_producer_submits_and_awaits_without_http(stack: Stack) -> None:
    printed = run(stack, "producer.py")

    assert "finished on int4, because entropy" in printed
    assert "later: finished" in printed


def test_a_batch_answers_every_line_and_runs_again_at_no_cost(stack: Stack, tmp_path: Path) -> None:
    bodies = [
        {"model": "smollm2", "prompt": f"One keyword for line {number}", "max_tokens": 4} for number in range(1, 8)
    ]
    text = "\n".join([*map(json.dumps, bodies), "no JSON", '{"model": "smollm2"}'])

    first, again = (
        {answer.pop("line"): answer for answer in map(json.loads, printed.splitlines())}
        for printed in (run(stack, "batch.py", str(tmp_path / "handle.json"), text=text) for _ in range(2))
    )

    assert first == again
    assert sorted(first) == list(range(1, 10))
    assert {first[line]["tier"] for line in range(1, 8)} == {"int4"}
    assert all(first[line]["response"]["choices"][0]["text"] for line in range(1, 8))
    assert "must be a JSON object" in first[8]["error"]
    assert "prompt" in first[9]["error"]


def test_the_thresholds_decide_where_a_request_goes(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_CONFIG=str(EXAMPLES / "thresholds.toml"))
    stack.intake()

    plain, dense, important = (
        stack.http.post("/v1/jobs", json={"model": "smollm2", "prompt": prompt}, headers=headers).json()
        for prompt, headers in (
            ("aaaa bbbb", {}),
            ("SELECT name, SUM(price) FROM orders", {}),
            ("aaaa bbbb", {"X-Priority": "9"}),
        )
    )

    assert [job["queue"].split(":")[1] for job in (plain, dense, important)] == ["int4", "int8", "int8"]


def test_every_example_is_listed_and_tested() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/examples").glob("test_*.py"))
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".toml"}}

    assert {name for name in names if f"]({name})" not in page} == set()
    assert {name for name in names if f'"{name}"' not in tests} == set()
