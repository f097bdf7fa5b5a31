"""What a client is told of a submission is true, at the defaults that ship: a server that stops, dies, or is slow."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import redis

from bitladder.errors import AcceptanceUnknownError, PartlySubmittedError, QueueUnreachableError
from bitladder.producer import BUNDLE, Producer
from tests.chaos.proxy import Proxy
from tests.conftest import OwnValkey, Stack, make_settings, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
HANDLERS = {
    "awaited": ("/v1/completions", BODY),
    "streamed": ("/v1/completions", BODY | {"stream": True}),
    "submitted": ("/v1/jobs", BODY),
}
LIST = "rq:queue:smollm2:int4:normal"


@contextlib.contextmanager
def stopped(valkey: OwnValkey) -> Iterator[None]:
    """Stop the server while the block runs, as a hypervisor does: its kernel goes on taking bytes for it."""
    with redis.Redis.from_url(valkey.url) as client:
        info: Any = client.info("server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(info["process_id"], signal.SIGCONT)


@pytest.fixture
def stack(own_valkey: OwnValkey, make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack(BITLADDER_REDIS__URL=own_valkey.url)
    stack.intake()
    return stack


def post(stack: Stack, endpoint: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    path, body = HANDLERS[endpoint]
    return httpx2.post(f"{stack.url}{path}", json=body, headers=headers, timeout=30)


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["code"])


def executed(store: redis.Redis) -> int:
    """Return how many jobs were ever claimed: nothing else counts a fence."""
    return sum(store.hexists(key, "fence") for key in store.keys("rq:job:*"))


def is_known(stack: Stack, answer: httpx2.Response) -> bool:
    return stack.http.get(answer.headers["location"]).status_code == 200


@pytest.mark.parametrize("endpoint", ["awaited", "submitted"])
def test_what_was_answered_503_by_a_stopped_server_does_not_run_when_it_goes_on(
    stack: Stack, own_valkey: OwnValkey, endpoint: str
) -> None:
    stack.worker("int4")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # So that the intake has connections that are open already: what goes out on them is with the server.
        before = list(pool.map(lambda _: post(stack, endpoint), range(4)))
        with stopped(own_valkey):
            answers = list(pool.map(lambda _: post(stack, endpoint), range(4)))
    after = post(stack, endpoint)

    doubtful = [answer for answer in answers if code(answer) == "acceptance_unknown"]
    wait_until(lambda: all(is_known(stack, answer) for answer in doubtful), "they are withdrawn")
    for answer in doubtful:
        assert stack.http.get(answer.headers["location"]).json()["status"] == "cancelled"
    with redis.Redis.from_url(own_valkey.url) as store:
        wait_until(lambda: store.llen(LIST) == 0 and not store.keys("bl:inflight:*"), "the worker has nothing to do")
        ran = executed(store)

    assert {(answer.status_code, answer.headers["x-should-retry"]) for answer in answers} == {(503, "true")}
    assert {code(answer) for answer in answers} <= {"acceptance_unknown", "queue_unreachable"}
    assert ran == len([*before, after])


@pytest.mark.parametrize(
    ("endpoint", "key"), [("awaited", ""), ("streamed", "once"), ("submitted", ""), ("submitted", "once")]
)
def test_a_job_whose_answer_was_lost_is_kept_for_its_key_and_withdrawn_without_one(
    make_stack: Callable[..., Stack], store: redis.Redis, redis_url: str, endpoint: str, key: str
) -> None:
    headers = {"Idempotency-Key": key} if key else {}
    with Proxy(int(redis_url.rpartition(":")[2].split("/")[0])) as proxy:
        stack = make_stack(BITLADDER_REDIS__URL=f"redis://127.0.0.1:{proxy.port}/0")
        stack.intake()
        stack.http.delete(f"/v1/jobs/{post(stack, 'submitted').json()['id']}")  # its connection is open
        lost = _lost_answer(stack, proxy, endpoint, headers)
        job_id = lost.headers["x-job-id"]
        wait_until(lambda: _gauge(stack, "bitladder_withdrawals_waiting") == 0, "nothing is left to be withdrawn")
        wait_until(lambda: is_known(stack, lost), "Redis has it")

        assert (lost.status_code, code(lost)) == (503, "acceptance_unknown")
        assert (lost.headers["location"], lost.headers["x-should-retry"]) == (f"/v1/jobs/{job_id}", "true")
        assert stack.http.get(lost.headers["location"]).json()["status"] == ("queued" if key else "cancelled")
        if endpoint == "submitted":
            assert (post(stack, endpoint, headers).json()["id"] == job_id) == bool(key)


def _lost_answer(stack: Stack, proxy: Proxy, endpoint: str, headers: dict[str, str]) -> httpx2.Response:
    """Submit when there and back is more than [redis].timeout_s: Redis has the job, and the intake does not know.

    Once more where the job found no connection that was open, so that nothing was sent.
    """
    for _ in range(10):
        proxy.delay(0.6)
        answer = post(stack, endpoint, headers)
        proxy.heal()
        if code(answer) == "acceptance_unknown":
            break
        wait_until(lambda: stack.http.get("/v1/queues").status_code == 200, "the intake is connected again")
    return answer


def _gauge(stack: Stack, name: str) -> float:
    lines = stack.http.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_server_that_is_gone_has_accepted_nothing_and_that_is_said(stack: Stack, own_valkey: OwnValkey) -> None:
    post(stack, "submitted")
    own_valkey.kill()
    wait_until(lambda: stack.http.get("/readyz").status_code == 503, "the intake knows")

    answer = post(stack, "submitted")

    assert (answer.status_code, code(answer)) == (503, "queue_unreachable")
    assert "nothing was accepted" in answer.json()["error"]["message"]
    assert "location" not in answer.headers


def test_a_client_that_leaves_while_redis_is_unreachable_takes_its_job_with_it_afterwards(
    stack: Stack, own_valkey: OwnValkey
) -> None:
    stack.worker("int4")
    body = BODY | {"max_tokens": 50_000, "stream": True}
    with httpx2.stream("POST", f"{stack.url}/v1/completions", json=body) as answer:
        next(answer.iter_lines())
        own_valkey.kill()
    own_valkey.start()

    with redis.Redis.from_url(own_valkey.url) as store:
        wait_until(lambda: len(store.keys("rq:canceled:*")) == 1, "the job is cancelled")


def test_a_producer_is_told_whether_its_job_may_be_accepted(own_valkey: OwnValkey) -> None:
    with Producer(make_settings(own_valkey.url, redis__timeout_s=0.2)) as producer:  # it waits five times as long
        producer.submit(BODY)
        with stopped(own_valkey), pytest.raises(AcceptanceUnknownError) as doubt:
            producer.submit(BODY)
        accepted = producer.submit(BODY)
        own_valkey.kill()
        with pytest.raises(QueueUnreachableError, match="nothing was accepted") as refusal:
            producer.submit(BODY)
        own_valkey.start()

    with redis.Redis.from_url(own_valkey.url) as store:
        assert store.lrange(LIST, 0, -1)[1:] == [accepted.encode()]
        assert not store.exists(f"rq:job:{doubt.value.job_id}")
    assert type(refusal.value) is QueueUnreachableError


def test_many_submissions_that_redis_leaves_in_the_middle_are_each_answered(own_valkey: OwnValkey) -> None:
    taken = 0

    def bodies() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for taken in range(1, 10 * BUNDLE):
            if taken == 3 * BUNDLE + 1:
                own_valkey.kill()
            yield BODY

    with (
        Producer(make_settings(own_valkey.url)) as producer,
        pytest.raises(PartlySubmittedError, match="Redis is unreachable") as partly,
    ):
        producer.submit_many(bodies())
    own_valkey.start()

    answers = partly.value.answers
    ids = [answer for answer in answers if isinstance(answer, str)]
    known = {answer.job_id for answer in answers if isinstance(answer, AcceptanceUnknownError)}
    with redis.Redis.from_url(own_valkey.url) as store:
        queued = [job_id.decode() for job_id in store.lrange("rq:queue:smollm2:int4:batch", 0, -1)]
    assert len(answers) == taken < 10 * BUNDLE
    assert len(ids) >= 2 * BUNDLE
    assert queued[: len(ids)] == ids
    assert set(queued[len(ids) :]) <= known
