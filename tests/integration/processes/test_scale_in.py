"""A scaler takes a worker away in the middle of its jobs, with less time than they need: SIGTERM, then SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import redis
import yaml

from bitladder.client import Client
from tests.conftest import ROOT, Stack, free_port, wait_until

KUBERNETES = ROOT / "deploy" / "kubernetes"

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


@pytest.mark.parametrize("hangs", [False, True], ids=["drains", "hangs"])
@pytest.mark.parametrize("part", [0.0025, pytest.param(1, marks=pytest.mark.long)], ids=["in a 400th", "in full"])
def test_a_pod_that_is_scaled_in_ends_by_its_deployment_s_numbers_and_loses_no_job(
    make_stack: Callable[..., Stack], store: redis.Redis, part: float, hangs: bool
) -> None:
    """What fits into the drain ends there; the rest, and all that a pod which hangs has, ends once elsewhere."""
    settings = tomllib.loads((KUBERNETES / "base/bitladder.toml").read_text(encoding="utf-8"))
    worker, _ = yaml.safe_load_all((KUBERNETES / "workers/template/worker.yaml").read_text(encoding="utf-8"))
    pod = worker["spec"]["template"]["spec"]
    assert "lifecycle" not in pod["containers"][0]  # Kubernetes sends SIGTERM alone, and SIGKILL behind the grace
    drain_s = settings["worker"]["drain_grace_s"] * part
    grace_s = pod["terminationGracePeriodSeconds"] * part + 2 * (part < 1)  # an end takes its time at any scale
    stack = make_stack(
        BITLADDER_WORKER__DRAIN_GRACE_S=str(drain_s),
        BITLADDER_ECHO__TTFT_MS=str(int(drain_s * 300)),
        **({"BITLADDER_QUEUE__LEASE_S": "3"} if part < 1 else {}),
    )
    stack.intake()
    victim = stack.worker("int4")
    stack.environment["BITLADDER_ECHO__TTFT_MS"] = "10"
    with Client(stack.url) as client, ThreadPoolExecutor(8) as pool:
        prompts = [f"job {number} {'echo:slow' * (number % 2)}" for number in range(8)]  # slow: ten times as long
        ids = [client.submit(BODY | {"prompt": prompt}, max_tier="int4")["id"] for prompt in prompts]
        wait_until(lambda: sum(store.zcard(key) for key in store.keys("rq:wip:*")) == 8, "all of them run")
        stack.worker("int4")

        victim.send_signal(signal.SIGTERM)
        if hangs:
            victim.send_signal(signal.SIGSTOP)
        try:
            status = victim.wait(grace_s)
        except subprocess.TimeoutExpired:
            victim.kill()
            status = victim.wait()
        done = list(pool.map(lambda job_id: client.wait(job_id, timeout_s=60), ids))

    assert status == (-signal.SIGKILL if hangs else 0)
    assert {job["status"] for job in done} == {"finished"}
    assert [job["attempts"] for job in done] == [2 if hangs else 1] * 8  # a job that a drain hands on is not charged
    assert sum(store.zcard(key) for key in store.keys("rq:finished:*")) == 8
    assert store.keys("rq:wip:*") + store.keys("bl:inflight:*") == []
