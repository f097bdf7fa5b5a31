"""A scaler takes a worker away in the middle of its jobs, with less time than they need: SIGTERM, then SIGKILL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import redis

from bitladder.client import Client
from tests.conftest import Stack, free_port, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


@pytest.mark.parametrize(
    "lease",
    [{"BITLADDER_QUEUE__LEASE_S": "3"}, pytest.param({}, marks=pytest.mark.long)],
    ids=["lease of 3 s", "lease that ships"],
)
def test_a_worker_that_is_killed_while_it_drains_loses_no_job(
    lease: dict[str, str], make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    port = free_port()
    # Its drain would last 30 s (the default), its jobs 4 s, and the scaler waits for less than 2 s.
    stack = make_stack(BITLADDER_ECHO__TTFT_MS="4000", **lease)
    stack.intake()
    stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
    victim = stack.worker("int4")
    del stack.environment["BITLADDER_WORKER__METRICS_PORT"]
    with Client(stack.url) as client, ThreadPoolExecutor(8) as pool:
        ids = [client.submit(BODY | {"prompt": f"job {number}"}, max_tier="int4")["id"] for number in range(8)]
        wait_until(lambda: sum(store.zcard(key) for key in store.keys("rq:wip:*")) == 8, "all of them run")

        victim.terminate()
        wait_until(lambda: httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 503, "it drains")
        late = client.submit(BODY, max_tier="int4")["id"]
        stack.worker("int4")
        assert victim.poll() is None
        victim.kill()
        done = list(pool.map(lambda job_id: client.wait(job_id, timeout_s=30), ids))
        last = client.wait(late, timeout_s=30)

    assert {(job["status"], job["attempts"]) for job in done} == {("finished", 2)}
    assert (last["status"], last["attempts"]) == ("finished", 1)  # it went to no worker that drains
    assert sum(store.zcard(key) for key in store.keys("rq:finished:*")) == 9
    assert store.keys("rq:wip:*") + store.keys("bl:inflight:*") == []
