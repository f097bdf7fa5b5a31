"""Real processes on a real Valkey: the way of a job, overflow, a killed worker, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from openai import OpenAI
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from bitladder.client import Client, JobError
from tests.conftest import Stack, make_settings, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


@pytest.fixture(scope="module")
def lasting(redis_url: str) -> Iterator[Stack]:
    """Return a stack for tests that need nothing of their own, in a database of its own: others' jobs are not its."""
    stack = Stack(redis_url.removesuffix("/0") + "/1")
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    return stack


def test_openai_s_client_awaits_and_streams_an_answer(stack: Stack) -> None:
    client = OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)

    awaited = client.completions.with_raw_response.create(model="smollm2", prompt="aa bb", max_tokens=3)
    streamed = client.chat.completions.with_raw_response.create(
        model="smollm2", messages=[{"role": "user", "content": "aa bb"}], max_tokens=3, stream=True
    )
    stream = streamed.parse()
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    client.close()

    assert awaited.parse().choices[0].text == "aa bb aa"
    assert awaited.headers["x-tier"] == awaited.headers["x-floor"] == "int4"
    assert float(awaited.headers["x-entropy"]) == pytest.approx(1.5219, abs=1e-3)
    for headers in (awaited.headers, streamed.headers):
        assert (headers["x-floor"], headers["x-policy"]) == ("int4", "article@1")
        assert (headers["x-entropy"], headers["x-route-reason"]) == ("1.5219", "entropy 1.52 <= 4.5")
    assert text == "aa bb"  # a chat ends with its words


def test_a_job_is_submitted_waited_for_and_shown(stack: Stack) -> None:
    with Client(stack.url) as client:
        submitted = client.submit(BODY, priority=3)
        done = client.wait(submitted["id"], timeout_s=10)

    assert submitted["status"] == "queued"
    assert (done["status"], done["tier"], done["attempts"]) == ("finished", "int4", 1)
    assert done["result"]["choices"][0]["text"] == "aa bb aa"
    for job in (submitted, done):
        assert (job["policy"], job["floor"], job["reason"]) == ("article@1", "int4", "entropy 1.52 <= 4.5")
        assert job["features"] == {"entropy": job["entropy"]} == {"entropy": 1.5219}


def test_a_running_job_is_cancelled(stack: Stack) -> None:
    with Client(stack.url) as client:
        submitted = client.submit(BODY | {"max_tokens": 50_000})
        wait_until(lambda: client.result(submitted["id"])["status"] == "running", "the job runs")

        client.cancel(submitted["id"])

        assert client.wait(submitted["id"], timeout_s=10)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        (b"{not json", {}, 400, None),
        (b"[]", {}, 400, None),
        (json.dumps({"prompt": "x"}).encode(), {}, 400, "model"),
        (json.dumps(BODY | {"model": 3}).encode(), {}, 400, "model"),
        (json.dumps(BODY | {"prompt": {"a": 1}}).encode(), {}, 400, "prompt"),
        (json.dumps(BODY | {"model": "gpt"}).encode(), {}, 404, "model"),
        (json.dumps(BODY).encode(), {"X-Priority": "11"}, 400, "X-Priority"),
        (json.dumps(BODY).encode(), {"X-Min-Tier": "int2"}, 400, "X-Min-Tier"),
        (json.dumps(BODY | {"prompt": "x" * 2_000_000}).encode(), {}, 413, None),
        (json.dumps(BODY | {"max_tokens": -1}).encode(), {}, 400, "max_tokens"),
    ],
)
def test_bad_input_gets_an_error_in_openai_s_shape(
    lasting: Stack, body: bytes, headers: dict[str, str], status: int, param: str | None
) -> None:
    answer = lasting.http.post("/v1/completions", content=body, headers=headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert error["message"]
    assert answer.headers["x-request-id"]


def test_unknown_and_expired_jobs_are_told_apart(lasting: Stack) -> None:
    unknown = lasting.http.get("/v1/jobs/nobody")
    expired = lasting.http.get("/v1/jobs/01900000-0000-7000-8000-000000000000")

    assert (unknown.status_code, expired.status_code) == (404, 410)


def test_a_burst_overflows_upward_within_its_bounds(make_stack: Callable[..., Stack]) -> None:
    marks = {f"BITLADDER_MODELS__SMOLLM2__TIERS__INT4__{key}": value for key, value in (("HIGH", "20"), ("LOW", "5"))}
    slow = {"BITLADDER_ECHO__TTFT_MS": "300"}
    slots = {f"BITLADDER_MODELS__SMOLLM2__TIERS__{tier}__SLOTS": "4" for tier in ("INT4", "INT8", "FP8")}
    stack = make_stack(**marks, **slow, **slots)
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)

    with Client(stack.url) as client, ThreadPoolExecutor(16) as pool:

        def submitted(options: dict[str, Any]) -> str:
            return str(client.submit(BODY, **options)["id"])

        kinds: list[dict[str, Any]] = [{}] * 200 + [{"max_tier": "int4"}] * 30 + [{"priority": 9}] * 20
        ids = list(pool.map(submitted, kinds))
        jobs = list(pool.map(lambda job_id: client.wait(job_id, timeout_s=60), ids))
        calm = client.wait(client.submit(BODY)["id"], timeout_s=10)

    served = Counter(job["tier"] for job in jobs[:200])
    assert {job["status"] for job in jobs} == {"finished"}
    assert set(served) == {"int4", "int8", "fp8"}
    assert {job["tier"] for job in jobs[200:230]} == {"int4"}
    assert {job["tier"] for job in jobs[230:]} == {"fp8"}
    assert all(job["overflowed_from"] == "int4" for job in jobs[:200] if job["tier"] != "int4")
    assert calm["tier"] == "int4"


def test_a_drained_worker_exits_with_0_and_hands_its_job_on(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_WORKER__DRAIN_GRACE_S="0.2")
    stack.intake()
    leaving = stack.worker("int4")
    with Client(stack.url) as client:
        job = client.submit(BODY | {"max_tokens": 400}, max_tier="int4")
        wait_until(lambda: client.result(job["id"])["status"] == "running", "the job runs")

        leaving.terminate()
        assert leaving.wait(10) == 0
        stack.worker("int4")
        done = client.wait(job["id"], timeout_s=20)

    assert (done["status"], done["attempts"]) == ("finished", 1)


def test_without_redis_the_intake_refuses_at_once(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_REDIS__URL="redis://127.0.0.1:1/0")
    stack.start("serve")
    wait_until(lambda: _status(stack, "/health") == 200, "the intake lives")

    answer = stack.http.post("/v1/jobs", json=BODY)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.elapsed.total_seconds() < 1


def test_rq_producers_and_rq_s_tools_work_on_our_queues(stack: Stack, store: redis.Redis, redis_url: str) -> None:
    queue = Queue("smollm2:int4:normal", connection=store, serializer=JSONSerializer)

    theirs = queue.enqueue("workers.generate", body=BODY)
    wait_until(lambda: theirs.get_status(refresh=True) == "finished", "RQ's job is finished")
    with Client(stack.url) as client:
        ours = client.wait(client.submit(BODY)["id"], timeout_s=10)
    fetched = Job.fetch(ours["id"], connection=store, serializer=JSONSerializer)
    shown = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "--url", redis_url, "--raw"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    value = theirs.return_value()
    assert value
    assert value["choices"][0]["text"] == "aa bb aa"
    assert fetched.get_status() == "finished"
    assert "aa bb" not in (fetched.description or "")
    assert "queue smollm2:int4:normal 0" in shown
    assert "smollm2.int4." in shown


def test_a_foreign_function_is_refused_and_the_worker_goes_on(stack: Stack, store: redis.Redis) -> None:
    queue = Queue("smollm2:int4:normal", connection=store, serializer=JSONSerializer)

    planted = queue.enqueue("os.getcwd")
    wait_until(lambda: planted.get_status(refresh=True) == "failed", "the foreign job is refused")

    with Client(stack.url) as client:
        assert client.wait(client.submit(BODY)["id"], timeout_s=10)["status"] == "finished"


def test_a_producer_queues_many_prompts_without_http(stack: Stack, redis_url: str) -> None:
    from bitladder.producer import Producer

    producer = Producer(make_settings(redis_url))
    ids = producer.submit_many(BODY | {"prompt": f"p {number}"} for number in range(300))
    producer.close()

    with Client(stack.url) as client:
        ends = Counter(client.wait(str(job_id), timeout_s=30)["status"] for job_id in ids)
    assert ends == {"finished": 300}


def _status(stack: Stack, path: str) -> int:
    try:
        return stack.http.get(path).status_code
    except Exception:
        return 0


def test_an_unreachable_intake_is_one_clear_error() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(JobError, match="cannot reach the intake"):
        client.submit(BODY)
