"""RQ's own producers and tools at our queues, each as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import redis
from rq import Queue, Worker
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from bitladder.client import Client
from tests.conftest import Stack, free_port, wait_until
from tests.warm_start import BITLADDER

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
REFUSED = BODY | {"max_tokens": "é"}  # by the engine
LONG = BODY | {"max_tokens": 50_000}
QUEUE = "smollm2:int4:normal"


@pytest.fixture
def queue(store: redis.Redis) -> Queue:
    return Queue(QUEUE, connection=store, serializer=JSONSerializer)


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    return stack


def enqueue(queue: Queue, body: object = BODY, **options: Any) -> Job:  # noqa: ANN401  (RQ's own)
    return queue.enqueue("workers.generate", body=body, **options)


def wait_for(job: Job, status: str, timeout_s: float = 20) -> None:
    wait_until(lambda: job.get_status(refresh=True) == status, f"{job.id} is {status}", timeout_s)
    job.refresh()  # type: ignore[no-untyped-call]  # RQ


def reason(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    assert result.type is Result.Type.FAILED
    return str(result.exc_string)


def rq(redis_url: str, *arguments: str) -> str:
    """Run RQ's own command line."""
    command = [sys.executable, "-m", "rq.cli", *arguments, "--url", redis_url]
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def burst(redis_url: str, queue: str) -> None:
    """Let RQ's own worker run all that waits."""
    rq(redis_url, "worker", queue, "--burst", "--serializer", "rq.serializers.JSONSerializer")


def test_a_failed_job_reads_as_one_that_rq_s_worker_ran(stack: Stack, queue: Queue, redis_url: str) -> None:
    stack.worker("int4")
    ours = enqueue(queue, REFUSED)
    theirs = Queue("elsewhere", connection=queue.connection, serializer=JSONSerializer).enqueue("no.such.function")
    burst(redis_url, "elsewhere")

    for job in (ours, theirs):
        wait_for(job, "failed")
    results = [job.latest_result() for job in (ours, theirs)]
    written = [{name for name, value in vars(result).items() if value} for result in results]

    assert reason(ours).startswith(
        "refused_by_engine: the engine refused the request with status 400: 1 validation error"
    )
    assert "body.max_tokens" in reason(ours)
    assert "'input': 'é'" in reason(ours)
    assert [job.id in FailedJobRegistry(job.origin, connection=queue.connection) for job in (ours, theirs)] == [
        True
    ] * 2
    assert written[1] - written[0] == {"execution_id", "execution_started_at", "execution_ended_at"}


def test_what_cannot_run_fails_with_a_reason_that_helps(stack: Stack, queue: Queue, store: redis.Redis) -> None:
    pickling = Queue(QUEUE, connection=store)
    jobs = {
        "corrupt_job: the job cannot be read: it is a pickle, and nothing is unpickled here: enqueue it with "
        "rq.serializers.JSONSerializer": pickling.enqueue("workers.generate", body=BODY),
        "wrong_model: the body's model must be the queue's, 'smollm2', got 'gpt-4'": enqueue(
            queue, BODY | {"model": "gpt-4"}
        ),
        "corrupt_job: the job cannot be read: its body: Expected `object`, got `str`": enqueue(queue, "aa bb"),
        "corrupt_job: the job cannot be read: function must be 'workers.generate', got 'os.getcwd'": queue.enqueue(
            "os.getcwd"
        ),
        "corrupt_job: the job cannot be read: positional arguments must be empty, got 1: name them": queue.enqueue(
            "workers.generate", BODY
        ),
    }
    nameless = enqueue(queue, {"prompt": "aa bb", "max_tokens": 3})
    stack.worker("int4")

    for job in jobs.values():
        wait_for(job, "failed")
    wait_for(nameless, "finished")

    for said, job in jobs.items():
        assert reason(job).startswith(said)
    assert stack.http.get("/v1/dead-letters").json()["by_code"] == {"corrupt_job": 4, "wrong_model": 1}


def test_a_job_timeout_ends_an_execution(stack: Stack, queue: Queue) -> None:
    stack.worker("int4")
    job = enqueue(queue, LONG, job_timeout=1)

    wait_for(job, "failed")
    shown = stack.http.get(f"/v1/jobs/{job.id}").json()

    assert reason(job) == "job_timeout: the job ran longer than its job_timeout of 1 s"
    assert (shown["status"], shown["error"]["code"]) == ("expired", "job_timeout")
    assert 900 < shown["run_ms"] < 10_000


def test_waiting_jobs_have_an_end_though_no_worker_lives(stack: Stack, queue: Queue, store: redis.Redis) -> None:
    del stack  # its intake is enough
    job = enqueue(queue)
    assert store.ttl(job.key) == -1

    wait_until(lambda: int(store.ttl(job.key)) > 0, "the job has a time to live")

    assert store.ttl(job.key) <= 86_400 + 3_600
    assert job.get_status(refresh=True) == "queued"


def test_rq_suspend_pauses_the_claims_until_rq_resume(stack: Stack, queue: Queue, redis_url: str) -> None:
    stack.worker("int4")
    with Client(stack.url) as client:
        running = enqueue(queue, BODY | {"max_tokens": 600})  # three seconds
        wait_for(running, "started")
        rq(redis_url, "suspend")
        waiting = [enqueue(queue).id, client.submit(BODY, min_tier="int4", max_tier="int4")["id"]]
        wait_for(running, "finished")
        wait_until(lambda: "suspended" in rq(redis_url, "info", "--raw", "--only-workers"), "rq info says so")
        shown, ready = stack.http.get("/v1/queues").json(), stack.http.get("/readyz").json()
        metrics = stack.http.get("/metrics").text
        listed = bitladder(stack, "queues")
        states = [client.result(job_id)["status"] for job_id in waiting]

        rq(redis_url, "resume")
        resumed_s = time.time()
        ends = [client.wait(job_id, timeout_s=20) for job_id in waiting]

    assert states == ["queued", "queued"]
    assert (shown["suspended"], ready["suspended"]) == (True, True)
    assert shown["data"][0]["tiers"][0]["live_workers"] == 1
    assert "bitladder_suspended 1.0" in metrics
    assert "suspended: no job begins until `rq resume`" in listed
    assert [job["status"] for job in ends] == ["finished"] * 2
    assert _started_s(queue, waiting[0]) - resumed_s < 1
    assert stack.http.get("/v1/queues").json()["suspended"] is False


def test_queues_that_no_tier_serves_are_shown_and_counted(stack: Stack, store: redis.Redis, redis_url: str) -> None:
    for name, count in (("smollm2:int3:normal", 2), ("mail", 1)):
        for _ in range(count):
            enqueue(Queue(name, connection=store, serializer=JSONSerializer))
    store.set("rq:queue:odd", "no list")
    store.sadd("rq:queues", "rq:queue:odd", b"rq:queue:\xff[red]", *(f"rq:queue:many{number}" for number in range(200)))
    mail = Worker(["mail"], connection=store)
    mail.register_birth()  # type: ignore[no-untyped-call]  # RQ

    shown, metrics, listed = (
        stack.http.get("/v1/queues").json(),
        stack.http.get("/metrics").text,
        bitladder(stack, "queues"),
    )

    assert shown["unknown"][:2] == [
        {"queue": "smollm2:int3:normal", "depth": 2, "workers": 0},
        {"queue": "mail", "depth": 1, "workers": 1},
    ]
    assert (len(shown["unknown"]), shown["unknown_total"]) == (100, 204)
    assert "bitladder_unknown_queues 204.0" in metrics
    assert "bitladder_unknown_queue_depth 3.0" in metrics
    assert "  smollm2:int3:normal: 2 jobs, 0 workers of RQ" in listed
    assert stack.http.get("/v1/queues").json()["data"][0]["tiers"][0]["tier"] == "int4"
    del redis_url


def test_rq_s_tools_show_what_our_worker_did(stack: Stack, queue: Queue, redis_url: str, store: redis.Redis) -> None:
    stack.worker("int4")
    done, failed = enqueue(queue), enqueue(queue, REFUSED)
    wait_for(done, "finished")
    wait_for(failed, "failed")

    # At the next renewal, a third of the lease later.
    wait_until(lambda: "jobs: 1 finished, 1 failed" in rq(redis_url, "info", "--raw"), "rq info counts them")
    (worker,) = Worker.all(connection=store)
    port = free_port()
    command = [sys.executable, "-m", "rq_dashboard", "--bind", "127.0.0.1", "--port", str(port), "-u", redis_url, "-j"]
    dashboard = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/0/data"
        wait_until(lambda: _get(f"{address}/queues.json") is not None, "rq-dashboard answers")
        shown = _get(f"{address}/job/{failed.id}.json")
        listed = _get(f"{address}/jobs/{QUEUE}/failed/8/asc/1.json")
    finally:
        dashboard.kill()
        dashboard.wait()

    assert (worker.successful_job_count, worker.failed_job_count) == (1, 1)
    assert worker.total_working_time > 0.01
    assert shown
    assert "body.max_tokens" in shown["exc_info"]
    assert listed
    assert [job["id"] for job in listed["jobs"]] == [failed.id]
    assert listed["jobs"][0]["exc_info"] == reason(failed)


def test_a_job_that_rq_s_own_worker_took_is_left_to_it(stack: Stack, queue: Queue, redis_url: str) -> None:
    taken = [enqueue(queue) for _ in range(3)]
    burst(redis_url, QUEUE)  # it finds no function of that name
    stack.worker("int4")
    mine = enqueue(queue)

    wait_for(mine, "finished")

    assert {job.get_status(refresh=True) for job in taken} == {"failed"}
    assert all("No module named" in reason(job) or "Invalid attribute name" in reason(job) for job in taken)
    assert stack.http.get("/v1/dead-letters").json()["total"] == 0


def bitladder(stack: Stack, *arguments: str) -> str:
    done = BITLADDER.run("bitladder.cli.main", *arguments, env=stack.environment | {"COLUMNS": "120"})
    done.check_returncode()
    return done.stdout + done.stderr  # remarks are not among the rows


def _started_s(queue: Queue, job_id: str) -> float:
    job = queue.fetch_job(job_id)
    assert job is not None
    assert job.started_at is not None
    return job.started_at.timestamp()


def _get(url: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = httpx2.get(url, timeout=5).raise_for_status().json()
    except (httpx2.HTTPError, ValueError):
        return None
    return content
