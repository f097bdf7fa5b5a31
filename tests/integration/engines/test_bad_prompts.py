"""Prompts that break every engine, among many that do not: they cost themselves, and no engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bitladder.client import Client
from tests.conftest import Stack, free_port
from workers.engine_health.watch import POLL_INTERVAL_S

TIERS = ("int4", "int8", "fp8")


class Release:
    """All tiers, each with a worker whose figures can be read."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.ports = stack, {tier: free_port() for tier in TIERS}
        stack.intake()
        for tier, port in self.ports.items():
            stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
            stack.worker(tier)

    def figures(self, name: str) -> list[float]:
        """Return the sum of a metric at each worker."""
        pages = [
            self.stack.http.get(f"http://127.0.0.1:{port}/metrics").text.splitlines() for port in self.ports.values()
        ]
        return [sum(float(line.rpartition(" ")[2]) for line in page if line.startswith(name)) for page in pages]

    def ran(self, prompts: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Submit jobs, some at a time, and yield them with their prompts once they are over."""
        with Client(self.stack.url) as client, ThreadPoolExecutor(16) as threads:

            def one(prompt: str) -> dict[str, Any]:
                job = client.submit({"model": "smollm2", "prompt": prompt, "max_tokens": 4})
                return client.wait(job["id"], timeout_s=100)

            yield from zip(prompts, threads.map(one, prompts), strict=True)


@pytest.fixture
def ladder(make_stack: Callable[..., Stack]) -> Release:
    return Release(make_stack(BITLADDER_POLICY__NAME="fixed:int4"))


def test_prompts_that_break_every_engine_restart_none_and_open_no_breaker(ladder: Release) -> None:
    for bad, every in ((30, 30), (60, 1)):  # three in a hundred, and nothing else
        prompts = ["echo:fault" if number % every == 0 else f"fine {number}" for number in range(bad * every)]
        before = sum(ladder.figures("bitladder_engine_faults_total"))
        ends = {(prompt[:4], job["status"], job["attempts"]) for prompt, job in ladder.ran(prompts)}
        time.sleep(2.5 * POLL_INTERVAL_S)  # every worker has polled its engine

        assert ends - {("fine", "finished", 1)} == {("echo", "failed", 3)}
        assert sum(ladder.figures("bitladder_engine_faults_total")) == before + 3 * bad
        assert ladder.figures("bitladder_engine_restarts_total") == [0, 0, 0]
        assert ladder.figures("bitladder_breaker_state") == [0, 0, 0]


def test_prompts_that_crash_engines_open_no_breaker(ladder: Release) -> None:
    prompts = ["echo:crash" if number % 32 == 20 else f"fine {number}" for number in range(96)]

    states, ends = set[float](), set[tuple[str, str]]()
    for prompt, job in ladder.ran(prompts):
        ends.add((prompt[:4], job["error"]["code"] if job["error"] else job["status"]))
        states |= set(ladder.figures("bitladder_breaker_state"))

    assert ends == {("echo", "poison"), ("fine", "finished")}
    assert sum(ladder.figures("bitladder_engine_restarts_total")) >= 3
    assert states == {0}
