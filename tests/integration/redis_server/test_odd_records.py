"""Whatever lies in Redis, written by RQ's producers or forged: it is answered for, in a form that clients can read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.contract import Outcome, State, encode_outcome
from bitladder.rq_call import FUNCTION_NAME
from tests.conftest import Stack, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
ODD_TEXT = {
    "line ends": "cheap\r\nSet-Cookie: a=b",
    "letters": "größer als 3 €",
    "signs": "a\x00b\x7fc\td",
    "long": "why " * 5000,
}


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Iterator[Stack]:
    stack = make_stack()
    with (tmp_path / "log").open("w+b") as stack.output:
        stack.intake()
        yield stack
        stack.stop()
        assert b"Traceback" not in Path(stack.output.name).read_bytes()


def waiting_job(stack: Stack) -> str:
    return str(stack.http.post("/v1/jobs", json=BODY).json()["id"])


def shown(stack: Stack, job_id: str) -> httpx2.Response:
    answer = stack.http.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    return answer


def test_a_producer_s_words_reach_headers_encoded_and_bounded(stack: Stack, store: redis.Redis) -> None:
    queue = Queue("smollm2:int4:normal", connection=store, serializer=JSONSerializer)
    calls = {name: {"body": BODY, "reason": text, "floor": text, "request_id": text} for name, text in ODD_TEXT.items()}
    ids = {name: queue.enqueue(FUNCTION_NAME, kwargs=call).id for name, call in calls.items()}
    waiting = {name: shown(stack, job_id).json() for name, job_id in ids.items()}
    stack.worker("int4")

    for name, text in ODD_TEXT.items():
        answer = stack.http.get(f"/v1/jobs/{ids[name]}", params={"wait": 20})

        assert (answer.status_code, answer.json()["status"]) == (200, "finished"), name
        assert "set-cookie" not in answer.headers
        for value in (answer.headers["x-route-reason"], answer.headers["x-floor"]):
            assert value.isascii()
            assert value.isprintable()
            assert len(value) <= 512
            assert unquote(value)[:20] == text[:20]
        for word in (waiting[name]["reason"], waiting[name]["floor"], answer.json()["request_id"]):
            assert word[:20] == text[:20]
            assert len(word) <= 201


ODD_OUTCOMES: dict[str, dict[str, Any]] = {
    **{f"status {status}": {"status": status} for status in (0, -1, 99, 100, 101, 204, 205, 304, 600, 1000, 10**30)},
    "status 200.5": {"status": 200.5},
    "status true": {"status": True},
    "a failure with 200": {"state": "failed"},
    "a failure with 302": {"state": "failed", "status": 302},
    "a job that waits": {"state": "queued"},
    "attempts": {"attempts": 10**30},
    "chunks": {"chunks": -1},
    "tokens": {"usage": {"prompt_tokens": -5}},
    "time": {"queue_ms": "soon"},
}


def test_an_outcome_that_nobody_can_be_answered_with_reads_as_a_failure(stack: Stack, store: redis.Redis) -> None:
    sound = {"state": "finished", "status": 200, "body": {"ok": True}}
    assert forged(stack, store, sound)["status"] == "finished"

    for name, fields in ODD_OUTCOMES.items():
        job = forged(stack, store, sound | fields)
        assert (job["status"], job["error"]["code"]) == ("failed", "corrupt_outcome"), name


def forged(stack: Stack, store: redis.Redis, outcome: dict[str, Any]) -> dict[str, Any]:
    job_id = waiting_job(stack)
    store.hset(f"rq:job:{job_id}", mapping={"status": "finished", "outcome": json.dumps(outcome)})
    found: dict[str, Any] = shown(stack, job_id).json()
    return found


def test_a_client_that_awaits_is_answered_whatever_is_published(stack: Stack, store: redis.Redis) -> None:
    sound = {"state": "finished", "status": 200, "body": {"ok": True}}
    with ThreadPoolExecutor(len(ODD_OUTCOMES)) as pool:
        posts = [pool.submit(stack.http.post, "/v1/completions", json=BODY) for _ in ODD_OUTCOMES]
        wait_until(lambda: len(store.keys("rq:job:*")) == len(posts), "all wait")
        keys: Any = store.keys("rq:job:*")
        for key, fields in zip(keys, ODD_OUTCOMES.values(), strict=True):
            content, job_id = json.dumps(sound | fields), key.decode().removeprefix("rq:job:")
            store.hset(key, mapping={"status": "finished", "outcome": content})
            store.publish(store.hget(key, "reply") or b"", f"d {job_id} 0 0 {len(content)}\n{content}")
        answers = [post.result(30) for post in posts]

    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(500, "corrupt_outcome")}


def test_numbers_beyond_measure_in_a_record_are_read_as_none(stack: Stack, store: redis.Redis) -> None:
    job_id = waiting_job(stack)
    store.hset(f"rq:job:{job_id}", mapping={"fence": "1e300", "wait": "1e300 1e300 1e300", "worker_name": "w" * 5000})

    job = shown(stack, job_id).json()

    assert (job["attempts"], len(job["worker"])) == (0, 201)


def test_an_odd_dead_letters_can_be_listed_and_shown(stack: Stack, store: redis.Redis) -> None:
    job_id = waiting_job(stack)
    odd = b"%b \xff\r %b {}\n-1 w 1 {}\n" % (b"9" * 5000, b"9" * 5000)
    store.hset(f"rq:job:{job_id}", mapping={"status": "failed", "outcome": b"\xff" * 40, "history": odd})
    store.zadd("bl:dead_letters", {job_id.encode(): float("inf"), b"\xff\r\n": 1})

    listed, one = stack.http.get("/v1/dead-letters"), stack.http.get(f"/v1/dead-letters/{job_id}")

    assert (listed.status_code, listed.json()["total"]) == (200, 2)
    assert (one.status_code, one.json()["code"]) == (200, "corrupt_outcome")


@pytest.mark.parametrize("unsigned", [True, False])
def test_with_keys_nobody_without_them_puts_words_into_an_answer(
    make_stack: Callable[..., Stack], store: redis.Redis, unsigned: bool
) -> None:
    stack = make_stack(BITLADDER_QUEUE__SECRETS='["a secret of the fleet, kept well"]')
    stack.intake()
    words = Outcome(state=State.FAILED, status=402, code="pay_first", error="send money to evil.example")
    expired = Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error="send money", tier="int4")
    prefix = b"" if unsigned else b"0" * 32

    def told(outcome: Outcome) -> dict[str, Any]:
        job_id = waiting_job(stack)
        content = prefix + encode_outcome(outcome)
        store.hset(f"rq:job:{job_id}", mapping={"status": "failed", "outcome": content})
        found: dict[str, Any] = shown(stack, job_id).json()
        return found

    assert told(words)["error"]["code"] == "corrupt_outcome"
    job = told(expired)
    assert (job["error"]["code"], job["tier"]) == ("deadline_exceeded" if unsigned else "corrupt_outcome", None)
    assert "money" not in json.dumps(job)
