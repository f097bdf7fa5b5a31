"""The stream of the overview over real connections: it is bounded, freed by who leaves, and ends with its intake."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

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
