"""Prompts that break every engine, among many that do not: they cost themselves, and no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from dispatcher.client import Client
from tests.conftest import Stack, free_port, wait_until

TIERS = ("int4", "int8", "fp8")


class Ladder:
    """All tiers, each with a worker whose figures can be read."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.ports = stack, {tier: free_port() for tier in TIERS}
        stack.intake()
        for tier, port in self.ports.items():
            stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
            stack.worker(tier)

    def figures(self, name: str) -> list[float]:
        """Return the sum of a metric at each worker."""
        pages = [httpx2.get(f"http://127.0.0.1:{port}/metrics").text.splitlines() for port in self.ports.values()]
        return [sum(float(line.rpartition(" ")[2]) for line in page if line.startswith(name)) for page in pages]

    def run(self, prompts: list[str]) -> Iterator[dict[str, Any]]:
        """Submit jobs, some at a time, and yield them once they are over."""
        with Client(self.stack.url) as client, ThreadPoolExecutor(16) as threads:

            def one(prompt: str) -> dict[str, Any]:
                job = client.submit({"model": "smollm2", "prompt": prompt, "max_tokens": 4})
                return client.wait(job["id"], timeout_s=100)

            yield from threads.map(one, prompts)


@pytest.fixture
def ladder(make_stack: Callable[..., Stack]) -> Ladder:
    return Ladder(make_stack(BITLADDER_POLICY__NAME="fixed:int4"))


def test_prompts_that_break_every_engine_restart_none_and_open_no_breaker(ladder: Ladder) -> None:
    prompts = ["echo:fault" if number % 30 == 0 else f"fine {number}" for number in range(900)]

    jobs = list(ladder.run(prompts))
    wait_until(lambda: sum(ladder.figures("bitladder_engine_faults_total")) == 90, "all attempts are counted")

    bad = [job for job, prompt in zip(jobs, prompts, strict=True) if prompt == "echo:fault"]
    assert {(job["status"], job["error"]["code"], job["attempts"]) for job in bad} == {("failed", "engine_fault", 3)}
    assert {job["status"] for job in jobs if job not in bad} == {"finished"}
    assert ladder.figures("bitladder_engine_restarts_total") == [0, 0, 0]
    assert ladder.figures("bitladder_breaker_state") == [0, 0, 0]


def test_prompts_that_crash_engines_open_no_breaker(ladder: Ladder) -> None:
    prompts = ["echo:crash" if number % 32 == 20 else f"fine {number}" for number in range(96)]

    states, jobs = set[float](), []
    for job in ladder.run(prompts):
        jobs.append(job)
        states |= set(ladder.figures("bitladder_breaker_state"))

    bad = [job for job, prompt in zip(jobs, prompts, strict=True) if prompt == "echo:crash"]
    assert {(job["status"], job["error"]["code"]) for job in bad} == {("failed", "poison")}
    assert {job["status"] for job in jobs if job not in bad} == {"finished"}
    assert sum(ladder.figures("bitladder_engine_restarts_total")) >= len(bad)
    assert states == {0}
