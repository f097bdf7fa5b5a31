"""More than can be done: refused at the intake, and what was let in ends. Real processes, a real Valkey."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import httpx2
import pytest
import redis
from openai import OpenAI, RateLimitError

from tests.conftest import ROOT, Stack, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 1}
# One worker with eight slots and jobs of 0.2 s: forty a second.
SLOW = {
    "BITLADDER_POLICY__NAME": "fixed:int4",
    "BITLADDER_ECHO__TTFT_MS": "200",
    "BITLADDER_MODELS__SMOLLM2__TIERS__INT4__SLOTS": "8",
}


def backlog(stack: Stack, count: int) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda body: stack.http.post("/v1/jobs", json=body).raise_for_status(), repeat(BODY, count)))


def rate_of(tier: str, stack: Stack) -> float:
    name = f'bitladder_tier_service_rate{{model="smollm2",tier="{tier}"}} '
    lines = stack.http.get("/metrics").text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def executions(store: redis.Redis) -> int:
    return sum(int(count) for count in store.hvals("bl:served:smollm2"))


def test_at_three_times_the_capacity_what_is_let_in_is_answered_in_time(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(**SLOW)
    stack.intake()
    stack.worker("int4")
    backlog(stack, 160)
    wait_until(lambda: rate_of("int4", stack) > 0, "the rate is known")
    url = f"{stack.url}/v1/completions"
    command = [sys.executable, "-m", "benchmarks.load.open_loop", url, "120", "10", "5000", "1"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)
    rows = json.loads(done.stdout)["rows"]

    statuses = [row[1] for row in rows]
    refused = [row for row in rows if row[1] == 429]
    accepted = len(rows) - len(refused)
    assert set(statuses) <= {200, 429, 504}
    assert statuses.count(200) >= 0.9 * accepted  # all of them, on a machine that does nothing else
    assert executions(store) >= statuses.count(200)
    assert len(refused) > len(rows) / 3
    assert all(row[3] >= 1 for row in refused)


def test_a_refusal_says_how_long_it_would_take_and_when_to_come_back(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(**SLOW)
    stack.intake()
    stack.worker("int4")
    backlog(stack, 240)
    wait_until(lambda: rate_of("int4", stack) > 0, "the rate is known")

    refusal = stack.http.post("/v1/completions", json=BODY, headers={"X-Deadline-Ms": "1000"})
    hurried = OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=1)
    with hurried, pytest.raises(RateLimitError, match="overloaded"):
        hurried.completions.create(model="smollm2", prompt="aa bb", max_tokens=1)
    long_deadline = stack.http.post("/v1/completions", json=BODY, headers={"X-Deadline-Ms": "60000"})
    unhurried = stack.http.post("/v1/jobs", json=BODY)
    metrics = stack.http.get("/metrics").text

    assert refusal.status_code == 429
    assert refusal.json()["error"]["code"] == "overloaded"
    assert "jobs wait ahead" in refusal.json()["error"]["message"]
    assert int(refusal.headers["Retry-After"]) >= 1
    assert refusal.headers["X-Should-Retry"] == "true"
    assert long_deadline.status_code == 200
    assert unhurried.status_code == 202
    assert 'bitladder_requests_refused_total{code="overloaded"}' in metrics


def test_near_maxmemory_new_jobs_are_refused_and_all_accepted_ones_end(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_POLICY__NAME="fixed:int4")
    limit = int(store.info("memory")["used_memory"]) + 12_000_000
    store.config_set("maxmemory", limit)
    try:
        stack.intake()
        body = BODY | {"prompt": "aa bb " * 5000}
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda one: stack.http.post("/v1/jobs", json=one), repeat(body, 900)))
        used = int(store.info("memory")["used_memory"])
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        refused = [answer for answer in answers if answer.status_code != 202]
        stack.worker("int4")
        wait_until(lambda: executions(store) == len(accepted), "all accepted jobs end", 60)
        ends = {stack.http.get(f"/v1/jobs/{job_id}").json()["status"] for job_id in accepted}
        wait_until(lambda: stack.http.post("/v1/jobs", json=BODY).status_code == 202, "jobs are taken in again")
    finally:
        store.config_set("maxmemory", 0)

    assert {answer.json()["error"]["code"] for answer in refused} == {"memory_full"}
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert used < limit
    assert len(accepted) > 100
    assert ends == {"finished"}


def test_a_full_queue_says_when_there_is_room(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_QUEUE__MAX_DEPTH="2")
    stack.intake()

    answers = [httpx2.post(f"{stack.url}/v1/jobs", json=BODY) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[2].json()["error"]["code"] == "queue_full"
    assert 5 <= int(answers[2].headers["Retry-After"]) <= 8


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_is_kept_where_no_worker_looks_at_the_queue(make_stack: Callable[..., Stack], stream: bool) -> None:
    stack = make_stack()
    stack.intake()

    answer = stack.http.post(
        "/v1/completions", json=BODY | {"stream": stream}, headers={"X-Deadline-Ms": "300"}, timeout=20
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.headers["X-Should-Retry"] == "false"
    job = stack.http.get(f"/v1/jobs/{answer.headers['X-Job-Id']}").json()
    assert (job["status"], job["error"]["code"]) == ("expired", "deadline_exceeded")  # what the client was told
