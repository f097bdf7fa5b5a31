"""Whoever waits for a job hears of its end, whatever happens to its record, its messages, or beside it."""

from __future__ import annotations

import itertools
import json
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from bitladder.producer import Producer
from tests.conftest import Stack, make_settings, wait_until
from tests.integration.intake.test_security import bearer, keys_in_toml

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
QUEUE = "smollm2:int4:normal"
# Nobody serves here: jobs wait until something else happens to them. Long polls are longer than any test.
SOON_S = 6


@pytest.fixture(scope="module")
def lone_intake(redis_url: str) -> Iterator[Stack]:
    # Half a thousand clients at once, on a machine that may have other things to do.
    stack = Stack(redis_url, BITLADDER_INTAKE__MAX_WAIT_S="600", BITLADDER_REDIS__TIMEOUT_S="5")
    stack.intake()
    yield stack
    stack.stop()


@pytest.fixture
def intake(lone_intake: Stack, store: redis.Redis) -> Stack:
    """Return an intake without workers, on an empty Redis."""
    wait_until(lambda: lone_intake.http.get("/readyz").status_code == 200, "the intake is ready")
    return lone_intake


def asked(stack: Stack, method: str, path: str, **options: Any) -> tuple[int, str]:  # noqa: ANN401
    """Return status and error code of an answer, or of the error that ends a stream; '' where there is none."""
    with httpx2.stream(method, stack.url + path, timeout=60, **options) as answer:
        text = answer.read().decode()
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    found = json.loads(data[-1] if data and data[-1] != "[DONE]" else "{}" if data else text)
    return answer.status_code, str((found.get("error") or {}).get("code", ""))


class Waiting:
    """One client at every endpoint behind which somebody waits for a job that has not begun."""

    def __init__(self, stack: Stack, store: redis.Redis, pool: ThreadPoolExecutor) -> None:
        keyed = {"Idempotency-Key": "once"}

        def ask(method: str, path: str, **options: Any) -> Future[tuple[int, str]]:  # noqa: ANN401
            return pool.submit(asked, stack, method, path, **options)

        first = stack.http.post("/v1/jobs", json=BODY, headers=keyed).json()["id"]
        streamed = stack.http.post("/v1/jobs", json=BODY | {"stream": True}).json()["id"]
        self.answers = {
            "await": ask("POST", "/v1/completions", json=BODY),
            "stream": ask("POST", "/v1/completions", json=BODY | {"stream": True}),
            "keyed": ask("POST", "/v1/completions", json=BODY, headers=keyed | {"Prefer": "wait"}),
            "wait": ask("GET", f"/v1/jobs/{first}?wait=500"),
            "events": ask("GET", f"/v1/jobs/{streamed}/events"),
        }
        wait_until(lambda: store.llen(f"rq:queue:{QUEUE}") == 4, "all jobs wait")
        time.sleep(0.3)  # those that look at a job only, which leaves no trace, are there too

    def said(self) -> dict[str, tuple[int, str]]:
        return {name: answer.result(SOON_S) for name, answer in self.answers.items()}


def flush(store: redis.Redis) -> None:
    store.flushall()


def delete_each(store: redis.Redis) -> None:
    """Do what rq-dashboard's button does."""
    queue = Queue(QUEUE, connection=store, serializer=JSONSerializer)
    for job_id in queue.get_job_ids():
        Job.fetch(job_id, connection=store, serializer=JSONSerializer).delete()


def empty(store: redis.Redis) -> None:
    """Do what `rq empty` does."""
    Queue(QUEUE, connection=store, serializer=JSONSerializer).empty()  # type: ignore[no-untyped-call]  # RQ


@pytest.mark.parametrize("vanish", [flush, delete_each, empty], ids=["FLUSHALL", "deleted", "rq empty"])
def test_whoever_waits_for_a_job_that_vanishes_is_told_within_seconds(
    intake: Stack, store: redis.Redis, vanish: Callable[[redis.Redis], None]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = Waiting(intake, store, pool)

        vanish(store)

        said = waiting.said()

    assert said == {
        "await": (500, "job_lost"),
        "stream": (500, "job_lost"),
        "keyed": (500, "job_lost"),
        "wait": (404, "not_found"),
        "events": (200, "job_lost"),
    }


def test_whoever_waits_for_a_job_that_an_rq_worker_took_is_told_within_seconds(
    intake: Stack, store: redis.Redis, redis_url: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = Waiting(intake, store, pool)
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", redis_url, QUEUE]
        serializer = ["--serializer", "rq.serializers.JSONSerializer"]

        subprocess.run([*command, *serializer], capture_output=True, timeout=60, check=True)

        said = waiting.said()

    assert said.pop("wait") == (200, "ended_elsewhere")
    assert said.pop("events") == (200, "ended_elsewhere")
    assert set(said.values()) == {(500, "ended_elsewhere")}


def test_a_producer_that_waits_for_a_job_that_vanishes_is_told_within_seconds(
    store: redis.Redis, redis_url: str
) -> None:
    with Producer(make_settings(redis_url)) as producer, ThreadPoolExecutor(1) as pool:
        running = pool.submit(producer.run, BODY)
        wait_until(lambda: store.llen(f"rq:queue:{QUEUE}") == 1, "the job waits")

        store.flushall()

        outcome = running.result(SOON_S)

    assert outcome
    assert (outcome.state, outcome.code) == ("failed", "job_lost")


def test_an_answer_that_nobody_will_give_is_not_to_be_asked_for_again_by_a_machine(
    intake: Stack, store: redis.Redis
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(intake.http.post, "/v1/completions", json=BODY)
        wait_until(lambda: store.llen(f"rq:queue:{QUEUE}") == 1, "the job waits")
        store.flushall()
        answer = waiting.result(SOON_S)

    assert answer.headers["x-should-retry"] == "false"


class LongPolls:
    """Many clients that wait for jobs, as bare sockets: they cost this process little."""

    def __init__(
        self, stack: Stack, job_ids: list[str], count: int, *, wait_s: int = 500, headers: dict[str, str] | None = None
    ) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._sockets = []
        for number in range(count):
            one = socket.create_connection(("127.0.0.1", stack.port), timeout=30)
            path = f"/v1/jobs/{job_ids[number % len(job_ids)]}?wait={wait_s}"
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())
            self._sockets.append(one)

    def answered(self) -> int:
        """Return how many have an answer."""
        return len(select.select(self._sockets, [], [], 0)[0])

    def __enter__(self) -> LongPolls:
        return self

    def __exit__(self, *details: object) -> None:
        for one in self._sockets:
            one.close()


def calls_in(seconds: float, store: redis.Redis) -> int:
    before: dict[str, Any] = store.info("commandstats")
    time.sleep(seconds)
    after: dict[str, Any] = store.info("commandstats")
    return int(after["cmdstat_evalsha"]["calls"]) - int(before["cmdstat_evalsha"]["calls"])


def test_510_long_polls_take_nobody_s_place_and_cost_redis_next_to_nothing(intake: Stack, store: redis.Redis) -> None:
    job_ids = [intake.http.post("/v1/jobs", json=BODY).json()["id"] for _ in range(50)]
    streamed = intake.http.post("/v1/jobs", json=BODY | {"stream": True}).json()["id"]
    with LongPolls(intake, job_ids, 510) as polls, ThreadPoolExecutor(2) as pool:
        wait_until(lambda: all(store.hexists(f"rq:job:{job_id}", "reply") for job_id in job_ids), "all wait")
        wait_until(lambda: calls_in(1, store) < 20, "all have said so")
        # Two looks each. The history's sample comes every ten seconds: into one of both at most.
        calls = min(calls_in(4.5, store) for _ in range(2))
        subscribed = [row for row in store.client_list() if int(row["sub"])]
        mine = pool.submit(asked, intake, "GET", f"/v1/jobs/{job_ids[0]}?wait=500")
        events = pool.submit(asked, intake, "GET", f"/v1/jobs/{streamed}/events")
        time.sleep(0.3)
        for job_id in (job_ids[0], streamed):
            intake.http.delete(f"/v1/jobs/{job_id}")
        start = time.monotonic()
        said = mine.result(SOON_S), events.result(SOON_S)
        elapsed_s = time.monotonic() - start
        answered = polls.answered()

    assert answered == 11  # those that wait for the job that is over
    assert said == ((200, "cancelled"), (200, "cancelled"))
    assert elapsed_s < 1.5  # the message, not the next look
    assert len(subscribed) == 1
    assert calls < 40  # admission, webhooks and batches look about four times a second together, whoever waits


def test_a_key_has_its_most_open_requests_without_being_told_to(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_AUTH__KEYS=keys_in_toml(), BITLADDER_AUTH__MAX_IN_FLIGHT="20")
    stack.http.headers.update(bearer("ops"))
    stack.intake()
    job_id = stack.http.post("/v1/jobs", json=BODY, headers=bearer("acme")).json()["id"]

    with LongPolls(stack, [job_id], 25, wait_s=60, headers=bearer("acme")) as polls:
        wait_until(lambda: polls.answered() == 5, "all have come")  # before another request takes one of their places
        wait_until(lambda: stack.http.get(f"/v1/jobs/{job_id}", headers=bearer("acme")).status_code == 429, "all wait")
        refused = stack.http.get(f"/v1/jobs/{job_id}?wait=1", headers=bearer("acme"))
        other = stack.http.post("/v1/jobs", json=BODY, headers=bearer("globex"))

    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "[auth].max_in_flight" in refused.json()["error"]["message"]
    assert other.status_code == 202


# What nobody of ours would publish, and what a later version may.
ODD = (
    b"",
    b"garbage",
    b"d x 0 0 -40\n{}",
    b"d x 0 0 99999999\n{}",
    b"t x a b 1\nx",
    b'{"v": 2, "items": []}',
    b"\xff\n" * 9,
)


def test_odd_messages_cost_no_answer_a_delay_and_are_logged_once(
    make_stack: Callable[..., Stack],
    store: redis.Redis,
    tmp_path: Any,  # noqa: ANN401
) -> None:
    stack = make_stack(BITLADDER_ECHO__TTFT_MS="5", BITLADDER_ECHO__TOKENS_PER_S="20")
    with (tmp_path / "log").open("w+b") as stack.output:
        stack.intake()
        stack.worker("int4")
        for channel in store.pubsub_channels("bl:*"):
            for message in ODD:
                store.publish(channel, message)

        took = [stack.http.post("/v1/completions", json=BODY).elapsed.total_seconds() for _ in range(5)]
        gaps = _gaps_between_tokens(stack)
        ready = stack.http.get("/readyz")
        log = (tmp_path / "log").read_text()

    assert statistics.median(took) < 1.5
    assert sorted(gaps)[-2] < 1  # one by one, not in one burst
    assert ready.status_code == 200
    assert log.count("message not understood") == 1
    assert "Traceback" not in log


def test_odd_messages_about_a_job_end_no_stream_of_it(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="20")
    stack.intake()
    stack.worker("int4")
    words = [str(number) for number in range(30)]
    body = BODY | {"prompt": " ".join(words), "max_tokens": 30, "stream": True}
    with stack.http.stream("POST", "/v1/completions", json=body) as answer:
        job_id = answer.headers["x-job-id"].encode()
        for channel in store.pubsub_channels("bl:reply:*"):
            for message in (b"t %b 1%b 1 3\nabc" % (job_id, b"0" * 20), b"t %b -1 1 3\nabc", b"d %b 0 0 3\nabc"):
                store.publish(channel, message % job_id if b"%b" in message else message)
        lines = [line for line in answer.iter_lines() if line]

    assert lines.pop() == "data: [DONE]"
    assert [json.loads(line[6:])["choices"][0]["text"].strip() for line in lines] == words


def _gaps_between_tokens(stack: Stack) -> list[float]:
    times = []
    body = BODY | {"stream": True, "max_tokens": 30}
    with httpx2.stream("POST", f"{stack.url}/v1/completions", json=body, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                times.append(time.monotonic())
    assert len(times) == 31
    assert times[-1] - times[0] > 1
    return [after - before for before, after in itertools.pairwise(times)]


def test_a_job_that_no_worker_claims_ends_at_its_deadline_for_all_who_wait_for_it_or_look_at_it(intake: Stack) -> None:
    late = {"X-Deadline-Ms": "500"}
    streamed = intake.http.post("/v1/jobs", json=BODY | {"stream": True}, headers=late).json()["id"]
    response = {"model": "smollm2", "input": "aa bb", "background": True}
    with ThreadPoolExecutor(8) as pool:
        stream = pool.submit(asked, intake, "GET", f"/v1/jobs/{streamed}/stream")
        events = pool.submit(asked, intake, "POST", "/v1/responses", json=response | {"stream": True}, headers=late)
        waited = pool.submit(intake.http.get, f"/v1/jobs/{streamed}?wait=60")

        assert stream.result(SOON_S) == (200, "deadline_exceeded")
        assert events.result(SOON_S)[0] == 200
        assert waited.result(SOON_S).json()["status"] == "expired"
    unseen = intake.http.post("/v1/responses", json=response, headers=late).json()["id"]
    wait_until(lambda: intake.http.get(f"/v1/responses/{unseen}").json()["status"] == "failed", "it has failed")
