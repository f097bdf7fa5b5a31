"""Token streams that are read again: from the start, behind the last event, while they run and when they are over."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
import redis

from bitladder.client import Client
from tests.conftest import Stack, echo_tokens, wait_until

BODY: dict[str, Any] = {
    "model": "smollm2",
    "prompt": " ".join(f"w{number}" for number in range(60)),
    "max_tokens": 60,
    "stream": True,
}


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="60")
    stack.intake()
    stack.worker("int4")
    return stack


# A worker that was killed has its lease for so long; the one that ships is waited for by `make long`.
LEASES = pytest.mark.parametrize(
    "lease",
    [{"BITLADDER_QUEUE__LEASE_S": "1"}, pytest.param({}, marks=pytest.mark.long)],
    ids=["lease of 1 s", "lease that ships"],
)


def read(
    stack: Stack, job_id: str, *, last: str = "", most: int = 1000, query: str = ""
) -> tuple[list[str], list[str]]:
    """Read up to `most` events; return their ids and texts, [DONE] and errors among the texts."""
    headers = {"Last-Event-ID": last} if last else {}
    ids: list[str] = []
    texts: list[str] = []
    with httpx2.stream("GET", f"{stack.url}/v1/jobs/{job_id}/stream{query}", headers=headers, timeout=30) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("id: "):
                ids.append(line[4:])
            elif line.startswith("data: "):
                texts.append(_text(line[6:]))
                if len(texts) == most:
                    break
    return ids, texts


def _text(data: str) -> str:
    if data == "[DONE]":
        return data
    event = json.loads(data)
    return str(event["error"]["code"] if "error" in event else event["choices"][0]["text"])


def test_a_client_that_lost_its_connection_reads_on_without_a_gap_or_a_repeat(stack: Stack) -> None:
    with Client(stack.url) as client:
        job_id = client.submit(BODY)["id"]

        ids, texts = read(stack, job_id, most=7)
        more_ids, more = read(stack, job_id, last=ids[-1], most=20)
        _, rest = read(stack, job_id, last=more_ids[-1])
        _, whole = read(stack, job_id)
        again = read(stack, job_id, last=ids[2])[1]

    words = echo_tokens(60)
    assert texts + more + rest == [*words, "[DONE]"]
    assert whole == [*words, "[DONE]"]
    assert again == [*words[3:], "[DONE]"]


def test_a_stream_whose_intake_is_killed_goes_on_at_another_and_at_the_one_that_is_started_again(
    stack: Stack, make_stack: Callable[..., Stack]
) -> None:
    other = make_stack()
    other.intake()
    accepted = stack.http.post("/v1/jobs", json=BODY).json()
    job_id = accepted["id"]
    reader = httpx2.stream("GET", stack.url + accepted["urls"]["stream"], timeout=30)
    ids: list[str] = []
    texts: list[str] = []
    with reader as answer:
        lines = answer.iter_lines()
        while len(texts) < 9:
            name, _, value = next(lines).partition(": ")
            ids += [value] if name == "id" else []
            texts += [_text(value)] if name == "data" else []
        stack.processes[0].kill()
        with pytest.raises(httpx2.HTTPError):
            list(lines)

    more_ids, more = read(other, job_id, last=ids[-1], most=9)
    stack.processes.pop(0).wait()
    stack.intake()
    _, rest = read(stack, job_id, query=f"?last_event_id={more_ids[-1]}")
    _, later = read(stack, job_id, query=f"?last_event_id={ids[0]}", last=more_ids[-1])  # as browsers reconnect
    former = other.http.get(f"/v1/jobs/{job_id}/events").text

    words = echo_tokens(60)
    assert texts + more + rest == [*words, "[DONE]"]
    assert later == rest
    assert former == other.http.get(f"/v1/jobs/{job_id}/stream").text


def test_a_repeated_stream_is_told_where_its_events_are(stack: Stack) -> None:
    body, key = BODY | {"max_tokens": 3}, {"Idempotency-Key": "once"}
    first = stack.http.post("/v1/completions", json=body, headers=key)

    again = stack.http.post("/v1/completions", json=body, headers=key)

    assert (again.status_code, again.json()["error"]["code"]) == (409, "stream_already_requested")
    assert again.headers["location"] in again.json()["error"]["message"]
    events = [line for line in stack.http.get(again.headers["location"]).text.splitlines() if line[:4] == "data"]
    assert events == [line for line in first.text.splitlines() if line]


def test_who_reads_on_behind_an_event_that_is_lost_is_told_how_to_read_the_answer(stack: Stack) -> None:
    job_id = stack.http.post("/v1/jobs", json=BODY | {"max_tokens": 2}).json()["id"]
    stack.http.get(f"/v1/jobs/{job_id}?wait=20")

    lost = stack.http.get(f"/v1/jobs/{job_id}/stream", headers={"Last-Event-ID": "9-9-9"}).text

    error = json.loads(lost.removeprefix("data: "))["error"]
    assert error["code"] == "stream_restarted"
    assert f"GET /v1/jobs/{job_id}/stream without Last-Event-ID" in error["message"]


GREEDY = BODY | {"temperature": 0}
SEEDED: dict[str, Any] = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": BODY["prompt"]}],
    "max_tokens": 60,
    "stream": True,
    "seed": 7,
    "stream_options": {"include_usage": True},
}


@LEASES
def test_an_answer_whose_worker_is_killed_goes_on_where_its_readers_are(
    lease: dict[str, str], make_stack: Callable[..., Stack]
) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="30", **lease)
    stack.intake()
    first = stack.worker("int4")

    def chat() -> list[Any]:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
            return list(client.chat.completions.create(**SEEDED))

    with Client(stack.url) as client, ThreadPoolExecutor(3) as pool:
        awaiting = [pool.submit(lambda: list(client.stream(GREEDY))), pool.submit(chat)]
        job_id = client.submit(GREEDY)["id"]
        reading = pool.submit(read, stack, job_id)
        ids, texts = read(stack, job_id, most=20)
        first.kill()
        stack.worker("int4")
        streamed, chunks = awaiting[0].result(30), awaiting[1].result(30)
        all_ids, whole = reading.result(30)
        job = client.result(job_id)

    rest = read(stack, job_id, last=ids[-1])[1]
    again = read(stack, job_id)
    events = stack.http.get(f"/v1/jobs/{job_id}/stream").text
    words = echo_tokens(60)
    assert streamed == words
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == ["", *words]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens == 60
    assert texts + rest == whole == [*words, "[DONE]"]
    assert again == (all_ids, whole)
    assert len({event_id.partition("-")[0] for event_id in all_ids}) == 2  # it had two executions
    assert len(set(re.findall(r'"id":"([^"]+)"', events))) == 1
    assert not any(line.startswith(":") for line in events.splitlines())  # nothing was silent for long enough
    assert (job["attempts"], job["text"], job["usage"]["completion_tokens"]) == (2, "".join(words), 60)
    assert job["result"]["id"] in events


@LEASES
def test_an_answer_that_comes_out_different_is_begun_anew_and_says_so(
    lease: dict[str, str], make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="30", **lease)
    stack.intake()
    first = stack.worker("int4")
    with Client(stack.url) as client:
        job_id = client.submit(GREEDY)["id"]
        ids, _ = read(stack, job_id, most=3)
        first.kill()
        first.wait()
        # Its third token was another one: as if it had been run on another kind of machine.
        fence = ids[0].partition("-")[0]
        sent: Any = store.xrange(f"bl:stream:{job_id}")
        store.delete(f"bl:stream:{job_id}")
        for entry, fields in sent:
            store.xadd(f"bl:stream:{job_id}", {"d": fields[b"d"].replace(b" w2", b" W2")}, id=entry)
        stack.worker("int4")
        _, texts = read(stack, job_id, last=ids[1])
        anew_ids, anew = read(stack, job_id)

    assert texts[-1] == "stream_restarted"
    assert texts[0] == " W2"
    assert anew == [*echo_tokens(60), "[DONE]"]
    assert all(event_id.partition("-")[0] > fence for event_id in anew_ids)


def test_a_stream_whose_execution_was_lost_says_so_to_whoever_read_some_of_it(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="30", BITLADDER_WORKER__DRAIN_GRACE_S="0.1")
    stack.intake()
    first = stack.worker("int4")
    with Client(stack.url) as client:
        job_id = client.submit(BODY)["id"]
        ids, _ = read(stack, job_id, most=1)
        first.terminate()
        first.wait(20)
        stack.worker("int4")
        wait_until(lambda: client.result(job_id)["status"] == "running", "it runs again")

        _, texts = read(stack, job_id, last=ids[-1])
        _, anew = read(stack, job_id)

    assert texts == ["stream_restarted"]
    assert anew == [*echo_tokens(60), "[DONE]"]


@pytest.mark.parametrize(
    "prompt", [{"prompt": "aa bb"}, {"messages": [{"role": "user", "content": "aa bb"}], "ignore_eos": True}]
)
def test_a_streamed_job_s_record_is_what_the_unstreamed_answer_would_be(
    stack: Stack, prompt: dict[str, object]
) -> None:
    body = {"model": "smollm2", "max_tokens": 3} | prompt
    with Client(stack.url) as client:
        streamed, plain = (
            client.wait(client.submit(body | {"stream": stream})["id"], timeout_s=20) for stream in (True, False)
        )

    assert streamed["chunks"] == 3
    assert streamed["text"] == "aa bb aa"
    assert {**streamed["result"], "id": 0, "created": 0} == {**plain["result"], "id": 0, "created": 0}
    assert streamed["usage"] == plain["usage"] == {"prompt_tokens": 2, "completion_tokens": 3}
    assert plain["text"] is None


def test_no_token_is_missing_though_redis_had_no_memory_for_a_second(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack(BITLADDER_ECHO__TOKENS_PER_S="15")
    stack.intake()
    stack.worker("int4")
    body = BODY | {"max_tokens": 40}
    with Client(stack.url) as client, ThreadPoolExecutor(2) as pool:
        job_id = client.submit(body)["id"]
        streaming = pool.submit(lambda: list(client.stream(body)))
        reading = pool.submit(read, stack, job_id)
        wait_until(lambda: store.xlen(f"bl:stream:{job_id}") >= 10, "some tokens are there")
        store.config_set("maxmemory", 1)
        try:
            time.sleep(1)
        finally:
            store.config_set("maxmemory", 0)
        streamed, read_on = streaming.result(30), reading.result(30)[1]
        again = read(stack, job_id)[1]

    words = echo_tokens(40)
    assert streamed == words
    assert read_on == [*words, "[DONE]"]
    assert again == [*words, "[DONE]"]


def test_chunks_that_are_gone_are_told_instead_of_left_out(stack: Stack, store: redis.Redis) -> None:
    with Client(stack.url) as client:
        job_id = client.submit(BODY)["id"]
        client.wait(job_id, timeout_s=20)
    ids, whole = read(stack, job_id)
    fence = ids[0].partition("-")[0]

    store.xdel(f"bl:stream:{job_id}", f"{fence}-20")
    middle = read(stack, job_id)[1]
    store.xadd(f"bl:stream:{job_id}", {"d": "x"}, id=f"{fence}-61")
    store.xtrim(f"bl:stream:{job_id}", minid=f"{fence}-61", approximate=False)
    store.xdel(f"bl:stream:{job_id}", f"{fence}-61")
    end = read(stack, job_id)[1]
    metrics = stack.http.get("/metrics").text

    assert whole[-1] == "[DONE]"
    assert middle == [*echo_tokens(19), "stream_incomplete"]
    assert end == ["stream_incomplete"]
    assert 'bitladder_streams_broken_total{code="stream_incomplete"} 2.0' in metrics


def test_streams_count_among_the_requests_that_were_served(stack: Stack) -> None:
    with Client(stack.url) as client:
        list(client.stream(BODY | {"max_tokens": 3}))
    refused = stack.http.post("/v1/completions", json=BODY | {"max_tokens": -1})

    metrics = stack.http.get("/metrics").text

    assert refused.status_code == 400
    served = 'bitladder_requests_served_total{model="smollm2",state="%s",tier="int4"} 1.0'
    assert served % "finished" in metrics
    assert served % "failed" in metrics
    assert 'bitladder_awaited_seconds_count{model="smollm2",tier="int4"} 2.0' in metrics


def test_a_job_without_a_stream_and_an_odd_event_id_are_refused(stack: Stack) -> None:
    with Client(stack.url) as client:
        plain = client.wait(client.submit(BODY | {"stream": False, "max_tokens": 1})["id"], timeout_s=20)["id"]
        streamed = client.submit(BODY)["id"]
    refused = stack.http.get(f"/v1/jobs/{plain}/stream")
    odd = stack.http.get(f"/v1/jobs/{streamed}/stream", headers={"Last-Event-ID": "12"})
    queried = stack.http.get(f"/v1/jobs/{streamed}/stream?last_event_id=0-0")
    unknown = stack.http.get("/v1/jobs/nobody/stream")

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "id")
    assert (odd.status_code, odd.json()["error"]["param"]) == (400, "Last-Event-ID")
    assert (queried.status_code, queried.json()["error"]["param"]) == (400, "last_event_id")
    assert unknown.status_code == 404
