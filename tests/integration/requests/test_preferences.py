"""Prefer and Idempotency-Key: who waits, who is told where the answer will be, and who gets the same one again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
import redis

from tests.conftest import Stack, wait_until

# Six tokens: a third of a second here, or three and a half with echo:slow.
QUICK: dict[str, Any] = {"model": "smollm2", "prompt": "a b", "max_tokens": 6}
SLOW = QUICK | {"prompt": "a b echo:slow"}


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    stack = Stack(redis_url, BITLADDER_ECHO__TTFT_MS="50", BITLADDER_ECHO__TOKENS_PER_S="20")
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


def complete(stack: Stack, body: dict[str, Any], **headers: str) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return stack.http.post("/v1/completions", json=body, headers=names)


def test_an_answer_comes_in_the_time_that_the_client_waits_and_else_where_to_look(stack: Stack) -> None:
    whole = complete(stack, QUICK, Prefer="respond-async, wait=20")
    late = complete(stack, SLOW, Prefer="respond-async, wait=0.2")
    at_once = complete(stack, SLOW, Prefer="respond-async")
    ended = stack.http.get(late.headers["location"], headers={"Prefer": "wait=20"})

    assert (whole.status_code, whole.headers["preference-applied"]) == (200, "wait=20")
    assert whole.json()["choices"]
    assert (late.status_code, late.headers["preference-applied"]) == (202, "respond-async, wait=0.2")
    assert (at_once.status_code, at_once.headers["preference-applied"]) == (202, "respond-async")
    assert {answer.json()["status"] for answer in (late, at_once)} == {"queued"}
    assert (ended.json()["status"], ended.headers["preference-applied"]) == ("finished", "wait=20")


def test_nobody_gets_a_202_who_did_not_ask_for_it(stack: Stack) -> None:
    waits = complete(stack, SLOW, Prefer="wait=0.2")
    other = complete(stack, QUICK, Prefer="return=minimal")

    assert (waits.status_code, waits.json()["error"]["code"]) == (504, "await_timeout")
    assert stack.http.get(waits.headers["location"]).json()["status"] in ("queued", "running")
    assert (other.status_code, "preference-applied" in other.headers) == (200, False)


def test_a_streamed_request_may_be_read_later(stack: Stack) -> None:
    accepted = complete(stack, QUICK | {"stream": True}, Prefer="respond-async, wait=5").json()

    assert stack.http.get(accepted["urls"]["stream"]).text.count("data: {") >= 6


def test_a_repeat_while_the_first_runs_is_told_so_and_one_that_waits_gets_the_same_answer(
    stack: Stack, redis_url: str
) -> None:
    key = {"Idempotency_Key": "running"}
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(complete, stack, SLOW, **key)
        wait_until(
            lambda: redis.Redis.from_url(redis_url).exists("bl:idem:smollm2:default:running") == 1, "it is there"
        )
        repeat = complete(stack, SLOW, **key)
        retried = pool.submit(complete, stack, SLOW, **key, X_Stainless_Retry_Count="1")
        waiting = pool.submit(complete, stack, SLOW, **key, Prefer="wait")
        other = complete(stack, QUICK, **key)
        elsewhere = complete(stack, SLOW, **key, Prefer="respond-async")
        answers = [answer.result(30) for answer in (first, retried, waiting)]
    again = complete(stack, SLOW, **key)

    job_id = answers[0].headers["x-job-id"]
    assert (repeat.status_code, repeat.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert {name: repeat.headers[name] for name in ("x-job-id", "location", "retry-after", "x-should-retry")} == {
        "x-job-id": job_id,
        "location": f"/v1/jobs/{job_id}",
        "retry-after": "1",
        "x-should-retry": "true",
    }
    assert other.status_code == 422
    assert (elsewhere.status_code, elsewhere.json()["id"]) == (202, job_id)
    assert {(answer.status_code, answer.text) for answer in (*answers, again)} == {(200, answers[0].text)}


def test_openais_library_gets_the_answer_of_its_own_first_try(stack: Stack) -> None:
    key = {"Idempotency-Key": "retried"}
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", timeout=1, max_retries=5) as client:
        answer = client.completions.with_raw_response.create(**SLOW, extra_headers=key)

    assert answer.retries_taken > 0
    assert answer.parse().choices[0].text
    assert complete(stack, SLOW, Idempotency_Key="retried").headers["x-job-id"] == answer.headers["x-job-id"]


def test_a_job_shows_what_its_client_has_noted_on_it_whatever_becomes_of_it(stack: Stack) -> None:
    noted = QUICK | {"metadata": {"order": "17"}}
    unserved = {"X_Min_Tier": "fp8"}  # no worker of that tier runs
    ended = complete(stack, noted, X_Tags="nightly, eu")
    waiting = complete(stack, noted, Prefer="respond-async", X_Tags="nightly", **unserved)
    links = [f"/v1/jobs/{answer.headers['x-job-id']}" for answer in (ended, waiting)]
    cancelled = stack.http.delete(links[1]).json()
    jobs = [stack.http.get(link).json() for link in links]
    wrong = complete(stack, QUICK | {"metadata": {"order": [17]}})
    plain = stack.http.get(f"/v1/jobs/{complete(stack, QUICK).headers['x-job-id']}").json()

    assert [(job["status"], job["metadata"], job["tags"]) for job in (*jobs, cancelled)] == [
        ("finished", {"order": "17"}, ["nightly", "eu"]),
        ("cancelled", {"order": "17"}, ["nightly"]),
        ("cancelled", {"order": "17"}, ["nightly"]),
    ]
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "metadata.order")
    assert not {"metadata", "tags"} & plain.keys()
