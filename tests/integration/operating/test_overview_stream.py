"""The overview beside real workers, and its stream over real connections."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import httpx2

from dispatcher.overview.sampler import MAX_STREAMS
from tests.conftest import Stack, wait_until

PATH = "/v1/overview/stream"


def test_streams_are_bounded_freed_by_who_leaves_and_ended_by_a_stop(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_INTAKE__HEARTBEAT_S="1")
    stack.intake()
    limits = httpx2.Limits(max_connections=MAX_STREAMS + 10)
    with httpx2.Client(base_url=stack.url, timeout=20, verify=False, limits=limits) as http:
        with contextlib.ExitStack() as streams:
            opened = [streams.enter_context(http.stream("GET", PATH)) for _ in range(MAX_STREAMS)]
            refused = http.get(PATH)

            assert {answer.status_code for answer in opened} == {200}
            assert opened[0].headers["content-type"].startswith("text/event-stream")
            assert opened[0].headers["x-accel-buffering"] == "no"
            assert next(opened[-1].iter_lines()) == "event: sample"
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            assert "100 streams of the overview are open at this intake" in refused.text

        def is_free() -> bool:
            with http.stream("GET", PATH) as answer:
                return answer.status_code == 200

        wait_until(is_free, "who has left is not counted any more")
        with http.stream("GET", PATH) as last:
            lines = last.iter_lines()
            assert next(lines) == "event: sample"
            stack.processes[0].send_signal(signal.SIGTERM)
            rest = list(lines)

        assert "retry: 1000" in rest
        assert stack.processes[0].wait(20) == 0


def test_what_workers_end_is_shown_within_seconds_with_the_tier_that_it_came_from(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int8")
    for prompt in ("one two three", "four five six", "echo:fault of ours"):
        stack.http.post("/v1/jobs", json={"model": "smollm2", "prompt": prompt}, headers={"X-Max-Tier": "int8"})

    def shown() -> tuple[Any, ...]:
        overview = stack.http.get("/v1/overview").json()
        int8 = overview["models"][0]["tiers"][1]
        added, codes = overview["dead_letters"]["added"], [note["runbook"] for note in overview["notes"]]
        return int8["overflow_in"], int8["jobs_per_s"] > 0, int8["tokens_per_s"] > 0, added, "dead-letters" in codes

    wait_until(lambda: shown() == ({"int4": 3}, True, True, 1, True), "the ends are counted")
